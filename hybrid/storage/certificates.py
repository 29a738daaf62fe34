"""The site's own CA certificates."""

import os
from pathlib import Path

from kfp_hybrid.storage.errors import StorageError


def ca_bundle(*variables: str) -> str | None:
    """The file that the first of the environment variables names, None when none does.

    Raises:
        StorageError: there is no such file.
    """
    for variable in variables:
        if path := os.environ.get(variable):
            if not Path(path).is_file():
                raise StorageError(f"{variable} names {path}, which is no file; give a file of CA certificates")
            return path
    return None
