"""Which store a URI names."""

from kfp_hybrid.storage.errors import StorageError
from kfp_hybrid.storage.interface import Store
from kfp_hybrid.storage.locations import Location, parse


def open_store(uri: str) -> Store:
    """The store below a URI or path.

    Args:
        uri: a path, or file://, s3://, minio:// or gs:// with a bucket and what the keys begin with.

    Raises:
        StorageError: an unknown scheme, or no way to reach the store.
    """
    return open_location(parse(uri))


def open_location(location: Location) -> Store:
    """The store below a location; see `open_store`."""
    try:
        if location.scheme == "file":
            from kfp_hybrid.storage.local import LocalStore

            return LocalStore(location)
        if location.scheme == "gs":
            from kfp_hybrid.storage.gcs import GcsStore

            return GcsStore(location)
        from kfp_hybrid.storage.s3 import S3Store

        return S3Store(location)
    except ModuleNotFoundError as error:
        package = {"minio": "minio", "google": "google-cloud-storage"}.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        raise StorageError(f"{location.uri} needs the package {package}; install it: pip install {package}") from None
