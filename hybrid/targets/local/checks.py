"""What `doctor` looks at on this machine."""

import shutil
from functools import partial
from pathlib import Path

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.doctor import Check, CheckWarning
from kfp_hybrid.targets.local.environments import environment_folder, is_made

ENVIRONMENTS_GIB = 6


def checks(cache: Path, runs: Path) -> list[Check]:
    """The checks of the local target, in order."""
    return [
        Check("environments can be kept", partial(_writable, cache), needed=True),
        *(Check(f"environment of image {image}", partial(_environment, image, cache)) for image in images.names()),
        Check("disk space", partial(_space, cache)),
        Check("runs can be written", partial(_writable, runs)),
    ]


def _writable(folder: Path) -> str:
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        probe = existing / f".kfp-hybrid-{id(folder)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"cannot write to {existing}: {error.strerror}; set KFP_HYBRID_CACHE or give -o") from None
    return str(folder.absolute())


def _environment(image: str, cache: Path) -> str:
    if not is_made(image, cache):
        raise CheckWarning("is not made yet; the first run makes it, or `kfp-hybrid environments` does now")
    return str(environment_folder(image, cache))


def _space(cache: Path) -> str:
    existing = next(parent for parent in (cache.absolute(), *cache.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 2**30
    missing = [image for image in images.names() if not is_made(image, cache)]
    if missing and free < ENVIRONMENTS_GIB:
        raise UserError(
            f"{free:.1f} GiB are free at {existing} and the environments take {ENVIRONMENTS_GIB}; "
            "make room, or set KFP_HYBRID_CACHE to another disk"
        )
    return f"{free:.0f} GiB free"
