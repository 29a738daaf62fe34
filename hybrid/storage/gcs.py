"""Google Cloud Storage, through Google's client."""

import base64
import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, BinaryIO

import google.auth
import requests
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions
from google.auth.credentials import AnonymousCredentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage as google_storage
from google.resumable_media import DataCorruption, InvalidResponse
from requests.adapters import HTTPAdapter

from kfp_hybrid.storage.certificates import ca_bundle
from kfp_hybrid.storage.errors import Damaged, NotFound
from kfp_hybrid.storage.gcs_errors import explain, make_retry
from kfp_hybrid.storage.interface import Condition, Entry, Store, metadata_of, noted
from kfp_hybrid.storage.locations import Location
from kfp_hybrid.storage.streams import HashingStream

CHUNK_BYTES = 16 << 20
CONNECTIONS = 32
TIMEOUT_SECONDS = (10, 60)
EMULATOR_VARIABLE = "STORAGE_EMULATOR_HOST"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
FIELDS = "items(name,size,generation,md5Hash,updated,metadata),prefixes,nextPageToken"

log = logging.getLogger(__name__)


class GcsStore(Store):
    """The objects of a bucket whose names begin with a prefix."""

    def __init__(self, location: Location) -> None:
        super().__init__(location)
        with self._explained(""):
            self._client = _connect()
        self._bucket = self._client.bucket(location.bucket)
        self._options: dict[str, Any] = {"retry": make_retry(), "timeout": TIMEOUT_SECONDS}

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store.entries`."""
        start = self._start()
        with self._explained(""):
            for blob in self._client.list_blobs(self._bucket, prefix=start + prefix, fields=FIELDS, **self._options):
                if not blob.name.endswith("/"):  # a marker that stands for a directory
                    yield _entry(blob.name[len(start) :], blob)

    def folders(self) -> list[str]:
        """See `Store.folders`."""
        start = self._start()
        with self._explained(""):
            found = self._client.list_blobs(self._bucket, prefix=start, delimiter="/", fields=FIELDS, **self._options)
            for _ in found:  # the prefixes come with the pages
                pass
            names = [name[len(start) :].rstrip("/") for name in found.prefixes]
        return sorted(filter(None, names))

    def stat(self, key: str) -> Entry | None:
        """See `Store.stat`."""
        name = self.location.key(key)
        if not name:
            return None
        blob = self._bucket.blob(name)
        try:
            with self._explained(key):
                blob.reload(**self._options)
        except NotFound:
            return None
        return _entry(key, blob)

    def read_range(self, entry: Entry, start: int, length: int) -> bytes:
        """See `Store.read_range`."""
        if not length:
            return b""
        blob = self._bucket.blob(self.location.key(entry.key))
        with self._explained(entry.key):
            data: bytes = blob.download_as_bytes(
                start=start, end=start + length - 1, raw_download=True, checksum=None,
                if_generation_match=int(entry.tag), **self._options,
            )  # fmt: skip
        if len(data) != length:
            raise Damaged(f"{self.uri_of(entry.key)} gave {len(data)} bytes instead of {length}; try again")
        return data

    def read_whole(self, entry: Entry) -> tuple[bytes, Entry]:
        """See `Store.read_whole`."""
        return self.read_range(entry, 0, entry.size), entry

    def write(self, key: str, content: BinaryIO, like: Entry, condition: Condition | None = None) -> Entry:
        """See `Store.write`. Large objects go up in chunks and appear when all are there."""
        name = self.location.key(key)
        blob = self._bucket.blob(name, chunk_size=CHUNK_BYTES if like.size > CHUNK_BYTES else None)
        blob.metadata = metadata_of(like) or None
        hashing = HashingStream(content, like, self.uri_of(key))
        with self._explained(key):
            blob.upload_from_file(
                hashing, size=like.size, checksum="crc32c", content_type="application/octet-stream",
                if_generation_match=None if condition is None else int(condition.tag or 0), **self._options,
            )  # fmt: skip
            hashing.check()
            if not like.sha256:
                self._note(blob, replace(like, sha256=hashing.sha256))
        return replace(_entry(key, blob), sha256=hashing.sha256)

    def _note(self, blob: Any, like: Entry) -> None:
        """Note what is known only after the upload."""
        blob.metadata = metadata_of(like)
        try:
            blob.patch(if_generation_match=blob.generation, **self._options)
        except exceptions.Forbidden:
            log.info("not allowed to note the sha256 of gs://%s/%s", blob.bucket.name, blob.name)

    def delete(self, keys: Iterable[str]) -> None:
        """See `Store.delete`."""
        with ThreadPoolExecutor(8, "delete") as executor:
            for _ in executor.map(self._delete, keys):
                pass

    def _delete(self, key: str) -> None:
        with contextlib.suppress(NotFound), self._explained(key):
            self._bucket.blob(self.location.key(key)).delete(**self._options)

    def _start(self) -> str:
        return f"{self.location.prefix}/" if self.location.prefix else ""

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        """Errors of the client as one line, and without the client's, which may show requests."""
        try:
            yield
        except (exceptions.GoogleAPIError, auth_exceptions.GoogleAuthError, requests.RequestException,
                DataCorruption, InvalidResponse, ConnectionError) as error:  # fmt: skip
            raise explain(error, self.uri_of(key)) from None


def _connect() -> google_storage.Client:
    credentials: Any
    if os.environ.get(EMULATOR_VARIABLE):
        credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    else:
        credentials, _ = google.auth.default(scopes=[SCOPE])
    session = AuthorizedSession(credentials)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    if bundle := ca_bundle("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"):
        session.verify = bundle
    return google_storage.Client(project=None, credentials=credentials, _http=session)


def _entry(key: str, blob: Any) -> Entry:
    md5 = base64.b64decode(blob.md5_hash).hex() if blob.md5_hash else ""
    notes = blob.metadata
    return Entry(
        key, blob.size or 0, str(blob.generation), blob.updated, noted(notes, "sha256"), md5, noted(notes, "origin")
    )
