"""Where data are: plain paths and `file://`, `s3://` and `minio://`, `gs://`; and which keys may become paths."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from kfp_hybrid.storage.errors import StorageError

SCHEMES = ("file", "s3", "minio", "gs")
OPTIONS = ("endpoint", "region", "disableSSL", "s3ForcePathStyle")  # what the KFP launcher reads in a pipeline root
_URI = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", re.DOTALL)


@dataclass(frozen=True)
class Location:
    """A parsed URI.

    Attributes:
        scheme: one of `SCHEMES`.
        bucket: the bucket; "" for files.
        prefix: the key of an object, or what the keys below begin with, without slashes at either end; for files
            the absolute path.
        options: how to reach the store; see `OPTIONS`.
    """

    scheme: str
    bucket: str
    prefix: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def uri(self) -> str:
        """The location as text, without options."""
        if self.scheme == "file":
            return self.prefix
        return f"{self.scheme}://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """The whole key of the object `name` below this location; "" is the location itself."""
        return "/".join(filter(None, (self.prefix, name)))


def is_uri(text: str) -> bool:
    """Whether `text` names a store by a scheme, so that it is no plain path."""
    return _URI.fullmatch(text) is not None


def parse(uri: str) -> Location:
    """Read a URI or a path.

    Raises:
        StorageError: an unknown scheme, no bucket, or a key that no store can hold safely.
    """
    if not uri.strip():
        raise StorageError("the location is empty; give a path or a URI such as s3://bucket/folder")
    match = _URI.fullmatch(uri)
    if not match:
        return Location("file", "", str(Path(uri).expanduser().absolute()))
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return _file(uri, rest)
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise StorageError(f"{_without_user(uri)}: cannot read {scheme}://; known are plain paths and {known}")
    rest, options = _split_options(rest)
    bucket, _, prefix = rest.partition("/")
    if "@" in bucket:
        raise StorageError(f"{_without_user(uri)} has credentials in it; give them in the environment instead")
    if not bucket:
        raise StorageError(f"{uri} names no bucket; write {scheme}://BUCKET/KEY")
    prefix = prefix.strip("/")
    if {".", ".."} & set(prefix.split("/")):
        raise StorageError(f"{uri} has . or .. in its key, which stores do not resolve; write the key out")
    return Location(scheme, bucket, prefix, options)


def relative_path(key: str) -> Path:
    """The path of the object `key` below a folder.

    Raises:
        StorageError: the key leads out of the folder, or is no name of a file.
    """
    parts = key.split("/")
    if not key or key.startswith("/") or {"", ".", ".."} & set(parts) or "\0" in key:
        raise StorageError(f"the key {key!r} cannot be a file below a folder; rename the object or leave it out")
    if too_long := next((part for part in parts if len(part.encode()) > 255), None):
        raise StorageError(f"the key {key!r} has a part of {len(too_long.encode())} bytes; files have 255 at most")
    return Path(*parts)


def _file(uri: str, rest: str) -> Location:
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost") or not slash:
        raise StorageError(f"{uri} is not a file of this machine; write file:///ABSOLUTE/PATH")
    return Location("file", "", str(Path("/" + unquote(path)).absolute()))


def _split_options(rest: str) -> tuple[str, dict[str, str]]:
    """Take `?endpoint=...` off the end; any other question mark belongs to a key or a pattern."""
    before, question_mark, query = rest.rpartition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    if question_mark and pairs and all(name in OPTIONS for name, _ in pairs):
        return before, dict(pairs)
    return rest, {}


def _without_user(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)
