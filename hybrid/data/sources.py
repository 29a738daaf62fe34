"""Finds the files that a source names, and opens them: one file, a directory, a glob, or a file of this package.

Files may lie in object stores. `.gz` files are decompressed, the members of `.zip` files and objects are read while
streaming; nothing is unpacked or copied to disk.
"""

import contextlib
import fnmatch
import glob
import gzip
import importlib.resources
import logging
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO

from kfp_hybrid.step import StepError

if TYPE_CHECKING:
    from kfp_hybrid.storage import Entry, Store

PACKAGE_SCHEME = "package://"
SAMPLE = "kfp_hybrid/samples/flights.csv.gz"
FORMATS = ("csv", "parquet", "tfrecord")
COMPRESSION_SUFFIXES = (".gz", ".gzip")
SUFFIXES = {".csv": "csv", ".parquet": "parquet", ".pq": "parquet", ".tfrecord": "tfrecord", ".tfrecords": "tfrecord"}
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@dataclass(frozen=True)
class StoredFile:
    """An object of a store, as it was when it was listed."""

    store: "Store"
    entry: "Entry"

    def __str__(self) -> str:
        return self.store.uri_of(self.entry.key)

    @property
    def name(self) -> str:
        """The last part of its key."""
        return str(self).rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The end of its name, from the last dot on."""
        return PurePosixPath(self.name).suffix

    def open(self, mode: str = "rb") -> BinaryIO:
        """The content, fetched as it is read."""
        return self.store.open_entry(self.entry)


@dataclass(frozen=True)
class Source:
    """One file, or one member of a .zip file.

    Attributes:
        path: the file.
        member: the name within a .zip file, else "".
    """

    path: Path | StoredFile
    member: str = ""

    @property
    def name(self) -> str:
        """What users call it."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def format(self) -> str | None:
        """The format that the file's name tells, None when it tells none."""
        path = PurePosixPath(self.member or self.path.name)
        if path.suffix.lower() in COMPRESSION_SUFFIXES:
            path = path.with_suffix("")
        if ".tfrecord-" in path.name:  # sharded: data.tfrecord-00000-of-00010
            return "tfrecord"
        return SUFFIXES.get(path.suffix.lower())

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The content, decompressed.

        Raises:
            StepError: the file cannot be opened, or, within the `with` block, turns out to be damaged.
        """
        try:
            with contextlib.ExitStack() as stack:
                yield self._open(stack)
        except (EOFError, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile) as error:
            raise StepError(f"{self.name} is damaged and cannot be decompressed: {error}; copy it again") from error
        except OSError as error:
            raise StepError(f"cannot read {self.name}: {error.strerror or error}") from error

    def random_access(self, stack: contextlib.ExitStack) -> Path | BinaryIO:
        """What a reader opens that goes to and fro in the file; a stream is closed with `stack`."""
        return self.path if isinstance(self.path, Path) else stack.enter_context(self.path.open())

    def _open(self, stack: contextlib.ExitStack) -> BinaryIO:
        stream: BinaryIO
        if self.member:
            archive = stack.enter_context(zipfile.ZipFile(self.random_access(stack)))
            stream = stack.enter_context(archive.open(self.member))  # type: ignore[assignment]
        else:
            stream = stack.enter_context(self.path.open("rb"))
        if stream.peek(2)[:2] == GZIP_MAGIC:  # type: ignore[attr-defined]
            stream = stack.enter_context(gzip.open(stream))  # type: ignore[assignment]  # noqa: SIM115
        return stream


def resolve(source: str) -> list[Source]:
    """The files that a source names, sorted by name.

    Args:
        source: path of a file or directory, a glob (`**` crosses directories), the same in an object store (s3://,
            minio://, gs://), or `package://kfp_hybrid/<path>` for a data file of this package. Of a directory, its
            files are read and not its sub-directories; names that begin with . or _ are left out.

    Raises:
        StepError: nothing is there, or it is something that cannot be read.
    """
    if not source.strip():
        raise StepError("source is empty; give a file, a directory, a glob, a URI or package://kfp_hybrid/<path>")
    if source.startswith(PACKAGE_SCHEME):
        return _members(_package_file(source))
    if "://" in source:
        from kfp_hybrid import storage

        location = storage.parse(source)
        if location.scheme != "file":
            return [member for file in _expand_uri(source) for member in _members(file)]
        source = location.prefix
    return [member for path in _expand(source) for member in _members(path)]


def _expand(source: str) -> list[Path]:
    path = Path(source).expanduser()
    if path.is_dir():
        if folders := sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not _is_bookkeeping(entry)):
            logging.warning("not reading the sub-directories of %s: %s", path, ", ".join(folders))
        found = [entry for entry in path.iterdir() if entry.is_file() and not _is_bookkeeping(entry)]
        if not found:
            raise StepError(f"the directory {path.absolute()} holds no file; give a directory of data files or a glob")
    elif path.exists():
        found = [path]
    elif glob.has_magic(source):
        found = [match for match in map(Path, glob.glob(str(path), recursive=True)) if match.is_file()]
        if not found:
            raise StepError(f"no file matches {path.absolute()}; check the pattern")
    else:
        raise StepError(f"source {path.absolute()} does not exist, or this step cannot see it; check the path")
    return sorted(entry.absolute() for entry in found)


def _expand_uri(source: str) -> list[StoredFile]:
    from kfp_hybrid import storage

    store = storage.open_store(source)
    if not glob.has_magic(store.location.prefix):
        return _files_at(store, is_folder=source.endswith("/"))
    fixed, pattern = _split_pattern(store.location.prefix)
    store = store.at(fixed)
    matches = [entry for entry in store.entries() if _matches(entry.key.split("/"), pattern)]
    if not matches:
        raise StepError(f"no object matches {source}; check the pattern")
    return [StoredFile(store, entry) for entry in matches]


def _files_at(store: "Store", is_folder: bool) -> list[StoredFile]:
    single = None if is_folder else store.stat("")
    if single:
        return [StoredFile(store, single)]
    entries = [entry for entry in store.entries() if not _is_bookkeeping(PurePosixPath(entry.key))]
    if folders := sorted({entry.key.partition("/")[0] for entry in entries if "/" in entry.key}):
        logging.warning("not reading the folders below %s: %s", store.uri_of(""), ", ".join(folders))
    found = [StoredFile(store, entry) for entry in entries if "/" not in entry.key]
    if not found:
        raise StepError(f"there is no file at {store.uri_of('')}; give an object, a folder of data files or a pattern")
    return found


def _split_pattern(prefix: str) -> tuple[str, list[str]]:
    """The folder that a pattern begins with, and the parts of the pattern below it."""
    parts = prefix.split("/")
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]), parts[first:]


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a key fits a pattern, by the rules of `glob`."""
    if not pattern:
        return not parts
    if pattern[0] == "**" and (len(pattern) == 1 or not parts):
        return bool(parts) and not any(part.startswith(".") for part in parts)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or (not parts[0].startswith(".") and _matches(parts[1:], pattern))
    if not parts or (parts[0].startswith(".") and not pattern[0].startswith(".")):
        return False
    return fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _is_bookkeeping(path: PurePosixPath | Path) -> bool:
    """Whether a name is bookkeeping and no data, like _SUCCESS, .DS_Store and __MACOSX."""
    return path.name.startswith((".", "_"))


def _package_file(source: str) -> Path:
    package, _, inner = source.removeprefix(PACKAGE_SCHEME).partition("/")
    if package != "kfp_hybrid":
        raise StepError(f"source {source}: only the data of this package can be read, as package://kfp_hybrid/<path>")
    path = Path(str(importlib.resources.files(package))) / inner
    if ".." in Path(inner).parts or Path(inner).is_absolute() or not path.is_file():
        raise StepError(f"source {source}: the package has no such file; the sample is {PACKAGE_SCHEME}{SAMPLE}")
    return path


def _members(path: Path | StoredFile) -> list[Source]:
    """The file itself, or the members of a .zip file."""
    if path.suffix.lower() != ".zip":
        return [Source(path)]
    try:
        with contextlib.ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(Source(path).random_access(stack)))
            members = [entry for entry in archive.infolist() if not entry.is_dir()]
    except (OSError, zipfile.BadZipFile) as error:
        raise StepError(f"cannot read {path}: {error}") from error
    data = [entry for entry in members if not any(map(_is_bookkeeping, _parts(entry.filename)))]
    if not data:
        raise StepError(f"{path} holds no data file")
    for entry in data:
        _refuse_unusual(path, entry)
    return [Source(path, name) for name in sorted(entry.filename for entry in data)]


def _parts(member: str) -> list[PurePosixPath]:
    return [PurePosixPath(part) for part in PurePosixPath(member).parts if part != ".."]


def _refuse_unusual(path: Path | StoredFile, entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    name = PurePosixPath(entry.filename)
    problem = None
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename:
        problem = "has a path that leads out of the archive"
    elif kind not in (0, stat.S_IFREG):
        problem = "is no regular file"
    elif entry.flag_bits & 1:
        problem = "is encrypted"
    elif entry.compress_type not in ZIP_METHODS:
        problem = f"is compressed by a method that cannot be read ({entry.compress_type})"
    if problem:
        raise StepError(f"the member {entry.filename!r} of {path} {problem}; make the archive again without it")


def choose_format(sources: list[Source], wanted: str) -> str:
    """The format of the files.

    Args:
        sources: the files.
        wanted: one of `FORMATS`, or "auto" to go by the names (and by the first bytes of Parquet files).

    Raises:
        StepError: unknown or mixed formats.
    """
    if wanted in FORMATS:
        return wanted
    if wanted != "auto":
        raise StepError(f"format is {wanted!r}; it must be auto, {', '.join(FORMATS)}")
    found = {source.format or _sniff(source): source for source in sources}
    if None in found:
        raise StepError(
            f"the name of {found[None].name} does not tell its format; set format to {', '.join(FORMATS)}, "
            "or give a glob that leaves it out"
        )
    if len(found) > 1:
        mixture = ", ".join(f"{source.name} is {format_}" for format_, source in found.items())
        raise StepError(f"the files have different formats ({mixture}); ingest them separately")
    return str(next(iter(found)))


def _sniff(source: Source) -> str | None:
    with source.open() as stream:
        return "parquet" if stream.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC else None
