"""One small interface to files and object stores: paths and `file://`, `s3://` and `minio://`, `gs://`.

    from kfp_hybrid import storage

    storage.download("s3://models/late/7", "/mnt/models")
    storage.upload("model", "gs://bucket/models/7")
    storage.sync("s3://models", "gs://bucket/models")
    store = storage.open_store("s3://bucket/folder")

Where the store is and who may use it comes from the environment; see docs/storage.md. Importing this needs no client
library: each is imported when a URI asks for it.
"""

from kfp_hybrid.storage.errors import Changed, Damaged, NotFound, StorageError
from kfp_hybrid.storage.interface import Condition, Entry, Store
from kfp_hybrid.storage.locations import Location, is_uri, parse
from kfp_hybrid.storage.opening import open_store
from kfp_hybrid.storage.trees import Progress, Transfer, download, sync, upload

__all__ = [
    "Changed",
    "Condition",
    "Damaged",
    "Entry",
    "Location",
    "NotFound",
    "Progress",
    "StorageError",
    "Store",
    "Transfer",
    "download",
    "is_uri",
    "open_store",
    "parse",
    "sync",
    "upload",
]
