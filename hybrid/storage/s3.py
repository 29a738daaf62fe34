"""S3 and what speaks its protocol, through the minio client."""

import contextlib
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from kfp_hybrid.storage.errors import Changed, NotFound, StorageError
from kfp_hybrid.storage.interface import Condition, Entry, Store, metadata_of, noted
from kfp_hybrid.storage.locations import Location
from kfp_hybrid.storage.s3_access import connect
from kfp_hybrid.storage.s3_errors import explain
from kfp_hybrid.storage.s3_requests import RetryingPool
from kfp_hybrid.storage.streams import HashingStream

PART_BYTES = 16 << 20
PARTS = 10_000  # of one object, at most
PARALLEL_PARTS = 3


class S3Store(Store):
    """The objects of a bucket whose keys begin with a prefix."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        self._bucket = location.bucket
        self._client = connect(location, RetryingPool())

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store.entries`."""
        start = self._start()
        with self._explained(""):
            for entry in self._client.entries(self._bucket, start + prefix):
                if not entry.key.endswith("/"):  # a marker that stands for a directory
                    yield replace(entry, key=entry.key[len(start) :])

    def folders(self) -> list[str]:
        """See `Store.folders`."""
        start = self._start()
        with self._explained(""):
            items = self._client.list_objects(self._bucket, prefix=start, recursive=False)
            names = [str(item.object_name)[len(start) :] for item in items if item.is_dir]
        return sorted(name.rstrip("/") for name in names if name.strip("/"))

    def stat(self, key: str) -> Entry | None:
        """See `Store.stat`."""
        name = self.location.key(key)
        if not name:
            return None
        try:
            with self._explained(key):
                found = self._stat(name)
        except NotFound:
            return None
        entry = Entry(key, found.size or 0, _tag(found.etag), found.last_modified)
        return _with_notes(entry, found.metadata or {})

    def _stat(self, name: str) -> Object:
        try:
            return self._client.stat_object(self._bucket, name)
        except S3Error as error:
            if error.code == "AccessDenied":  # the answer to HEAD has no body that could tell what is wrong
                next(self._client.list_objects(self._bucket, prefix=name), None)
            raise

    def read_range(self, entry: Entry, start: int, length: int) -> bytes:
        """See `Store.read_range`."""
        return self._get(entry, start, length)[0] if length else b""

    def read_whole(self, entry: Entry) -> tuple[bytes, Entry]:
        """See `Store.read_whole`."""
        if not entry.size:
            return b"", entry
        data, headers = self._get(entry, 0, entry.size)
        return data, _with_notes(entry, headers)

    def _get(self, entry: Entry, start: int, length: int) -> tuple[bytes, Mapping[str, str]]:
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        if entry.tag:
            headers["If-Match"] = f'"{entry.tag}"'
        with self._explained(entry.key):
            response = self._client.get(self._bucket, self.location.key(entry.key), headers)
        if len(response.data) != length or (entry.tag and _tag(response.headers.get("ETag")) != entry.tag):
            raise Changed(f"{self.uri_of(entry.key)} was replaced while it was read; try again")
        return response.data, response.headers

    def write(self, key: str, content: BinaryIO, like: Entry, condition: Condition | None = None) -> Entry:
        """See `Store.write`. Large objects go up in parts and appear when all are there."""
        hashing = HashingStream(content, like, self.uri_of(key))
        with self._explained(key):
            if like.size <= PART_BYTES:
                data = hashing.read(like.size)
                hashing.check()
                like = replace(like, sha256=hashing.sha256)
                etag = self._put(key, data, metadata_of(like), condition)
            else:
                if condition:
                    raise ValueError("only objects of one part can be written under a condition")
                etag = self._put_parts(key, hashing, like)
        return Entry(key, like.size, _tag(etag), None, hashing.sha256, origin=like.origin)

    def _put(self, key: str, data: bytes, metadata: dict[str, str], condition: Condition | None) -> str | None:
        name = self.location.key(key)
        if condition is None:
            return self._client.put_object(
                self._bucket, name, io.BytesIO(data), len(data), metadata=dict(metadata)
            ).etag
        current = self.stat(key)  # for stores that do not know the headers below
        if (current.tag if current else "") != condition.tag:
            raise Changed(f"{self.uri_of(key)} was changed by another process; try again")
        headers: dict[str, Any] = {f"x-amz-meta-{note}": value for note, value in metadata.items()}
        headers |= {"If-Match": f'"{condition.tag}"'} if condition.tag else {"If-None-Match": "*"}
        return self._client._put_object(self._bucket, name, data, headers).etag  # no public method sends conditions

    def _put_parts(self, key: str, content: HashingStream, like: Entry) -> str | None:
        part = max(PART_BYTES, math.ceil(like.size / PARTS))
        try:
            return self._client.put_object(
                *(self._bucket, self.location.key(key), content, like.size),  # type: ignore[arg-type]
                part_size=part, num_parallel_uploads=PARALLEL_PARTS, metadata=dict(metadata_of(like)),
            ).etag  # fmt: skip
        except S3Error as error:  # also when it was completed already and only the answer to that was lost
            found = self.stat(key) if error.code == "NoSuchUpload" and like.sha256 else None
            if found is None or (found.size, found.sha256) != (like.size, like.sha256):
                raise
            return found.tag

    def delete(self, keys: Iterable[str]) -> None:
        """See `Store.delete`."""
        names = [DeleteObject(self.location.key(key)) for key in keys]
        with self._explained(""):
            for error in self._client.remove_objects(self._bucket, names):
                if error.code != "NoSuchKey":
                    raise StorageError(
                        f"cannot delete s3://{self._bucket}/{error.name}: {error.code}; check its permissions"
                    )

    def _start(self) -> str:
        return f"{self.location.prefix}/" if self.location.prefix else ""

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Errors of the client as one line, and without the client's, which may show requests."""
        try:
            yield
        except (MinioException, HTTPError, OSError) as error:
            raise explain(error, self.uri_of(key)) from None
        except ValueError as error:  # the client's word on bucket and object names
            raise StorageError(f"{self.uri_of(key)}: {error}; check the name") from None


def _tag(etag: str | None) -> str:
    return (etag or "").strip('"')


def _with_notes(entry: Entry, headers: Mapping[str, str]) -> Entry:
    notes = {name: headers.get(f"x-amz-meta-{name}") or "" for name in ("sha256", "origin")}
    return replace(entry, sha256=noted(notes, "sha256"), origin=noted(notes, "origin"))
