"""How to reach an S3 store: endpoint, region, certificates and credentials. None of them is ever shown."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import urllib3
from minio.credentials import (
    AWSConfigProvider,
    ChainedProvider,
    Credentials,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
)
from urllib3.exceptions import HTTPError

from kfp_hybrid.storage.errors import StorageError
from kfp_hybrid.storage.locations import Location
from kfp_hybrid.storage.s3_client import Client

ENDPOINT_VARIABLES = ("S3_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
SECRET_VARIABLE = "S3_SECRET_DIR"  # noqa: S105 - the name of a variable
KFP_ENDPOINTS = ("seaweedfs.kubeflow:9000", "minio-service.kubeflow:9000")  # of 2.16 and later; of those before
AWS = "s3.amazonaws.com"
METADATA_SECONDS = 2.0


def connect(location: Location, http: urllib3.PoolManager) -> Client:
    """A client for the store of `location`.

    Raises:
        StorageError: no endpoint, or no credentials.
    """
    host, secure = endpoint(location, os.environ)
    region = location.options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    client = Client(
        host,
        secure=secure,
        region=region or (None if host == AWS else "us-east-1"),
        credentials=credentials(host == AWS),
        http_client=http,
    )
    if location.options.get("s3ForcePathStyle", "true").lower() == "false":
        client.enable_virtual_style_endpoint()
    return client


def endpoint(location: Location, environ: "os._Environ[str] | dict[str, str]") -> tuple[str, bool]:
    """Host with port, and whether to use TLS.

    The options of the location come first, then the environment, then AWS for s3:// and the object store of
    Kubeflow Pipelines for minio://. Without http:// or https://, s3:// uses TLS and minio:// does not.
    """
    named = location.options.get("endpoint") or next(filter(None, map(environ.get, ENDPOINT_VARIABLES)), "")
    if not named:
        named = f"https://{AWS}" if location.scheme == "s3" else _kfp_endpoint(location)
    has_scheme = named.startswith(("http://", "https://"))
    parts = urlsplit(named if has_scheme else f"//{named}")
    if not parts.hostname or parts.path.strip("/") or parts.username:
        raise StorageError(f"the S3 endpoint must be HOST:PORT, http://HOST:PORT or https://HOST, not {_shown(named)}")
    secure = parts.scheme == "https" if has_scheme else location.scheme == "s3"
    if "disableSSL" in location.options:
        secure = location.options["disableSSL"].lower() != "true"
    return parts.netloc, secure


def credentials(is_aws: bool) -> Provider:
    """The first that there is of: a mounted secret, the environment, AWS's files, the identity of the workload."""
    if folder := os.environ.get(SECRET_VARIABLE):
        return _MountedSecret(Path(folder))
    providers: list[Provider] = [EnvAWSProvider(), AWSConfigProvider()]
    names = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
             "AWS_CONTAINER_CREDENTIALS_FULL_URI")  # fmt: skip
    on_machine = is_aws and os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true"
    if on_machine or any(map(os.environ.get, names)):
        http = urllib3.PoolManager(timeout=METADATA_SECONDS, retries=urllib3.Retry(2, backoff_factor=0.2))
        providers.append(IamAwsProvider(custom_endpoint=os.environ.get("AWS_ENDPOINT_URL_STS"), http_client=http))
    return _Explained(ChainedProvider(providers))


class _MountedSecret(Provider):
    """The files accesskey and secretkey of a folder, as Kubeflow's secret has them; read again when they change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: tuple[object, Credentials] | None = None

    def retrieve(self) -> Credentials:
        files = [self._folder / name for name in ("accesskey", "secretkey", "sessiontoken")]
        try:
            stamp = [file.stat().st_mtime_ns for file in files[:2]]
            if self._read is None or self._read[0] != stamp:
                access, secret = (file.read_text("utf-8").strip() for file in files[:2])
                token = files[2].read_text("utf-8").strip() if files[2].is_file() else None
                self._read = (stamp, Credentials(access, secret, token))
        except (OSError, UnicodeDecodeError, ValueError):
            raise StorageError(
                f"{SECRET_VARIABLE} names {self._folder}, which has no readable files accesskey and secretkey; "
                "mount the secret there"
            ) from None
        return self._read[1]


class _Explained(Provider):
    """Says what to do when nobody has credentials; what the providers say may hold secrets."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def retrieve(self) -> Credentials:
        try:
            return self._provider.retrieve()
        except (ValueError, OSError, HTTPError, KeyError):
            raise StorageError(
                "there are no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                f"or {SECRET_VARIABLE} to the folder of a mounted secret, or give the workload an identity"
            ) from None


def _kfp_endpoint(location: Location, resolve: Callable[..., object] = socket.getaddrinfo) -> str:
    for name in KFP_ENDPOINTS:
        host, _, port = name.partition(":")
        try:
            resolve(host, int(port))
        except OSError:
            continue
        return name
    raise StorageError(
        f"no endpoint for {location.uri}: this is no cluster with {' or '.join(KFP_ENDPOINTS)}; set S3_ENDPOINT"
    )


def _shown(endpoint: str) -> str:
    return f"...@{endpoint.rpartition('@')[2]}" if "@" in endpoint else repr(endpoint)
