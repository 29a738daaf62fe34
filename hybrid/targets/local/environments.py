"""An image on this machine: the virtual environment that its lock file describes.

An environment is cached under the hash of its lock file. It is built once, under a file lock, and counts
only when its marker file is there: a build that was killed is thrown away and done again.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import uv
from filelock import FileLock

from kfp_hybrid import images
from kfp_hybrid.errors import UserError

PYTHON_VERSION = "3.11"
MARKER = ".complete"

Notify = Callable[[str], None]


def lock_digest(image: str) -> str:
    """What an environment is cached under: the lock file, the Python version and the platform (16 hex digits)."""
    identity = f"{PYTHON_VERSION} {sys.platform} {platform.machine()}\n".encode()
    return hashlib.sha256(identity + images.lock_file(image).read_bytes()).hexdigest()[:16]


def environment_folder(image: str, cache: Path) -> Path:
    """Where the environment of `image` is, or will be."""
    return cache / "environments" / f"{image}-{lock_digest(image)}"


def is_made(image: str, cache: Path) -> bool:
    """Whether the environment of `image` is there, whole."""
    return _is_complete(environment_folder(image, cache))


def ensure_environment(image: str, cache: Path, notify: Notify) -> Path:
    """Make the environment of `image` unless it is there already, and return its interpreter.

    Args:
        image: one of `images.names()`.
        cache: the cache directory of this tool.
        notify: told in one line when an environment has to be made or waited for.

    Raises:
        UserError: the environment cannot be built (no Python 3.11, index out of reach, disk full ...).
    """
    folder = environment_folder(image, cache)
    if not _is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_complete(folder):
                notify(f"making the environment of image {image} in {folder} (once, takes a minute or two)")
                _build(folder, image)
    return folder / "bin" / "python"


def _is_complete(folder: Path) -> bool:
    return (folder / MARKER).is_file() and (folder / "bin" / "python").exists()


def _build(folder: Path, image: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        _uv(image, "venv", "--quiet", "--python", _interpreter(), str(folder))
        # `sync` installs exactly the lock; where a pin overrides what a package asks for, resolving again would fail.
        _uv(image, "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode",
            "--python", str(folder / "bin" / "python"), str(images.lock_file(image)))  # fmt: skip
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / MARKER).touch()


def _uv(image: str, *arguments: str) -> None:
    environ = dict(os.environ)
    if "PIP_INDEX_URL" in environ:  # a site's mirror is often configured for pip only
        environ.setdefault("UV_DEFAULT_INDEX", environ["PIP_INDEX_URL"])
    done = subprocess.run([uv.find_uv_bin(), *arguments], env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())[-600:] or f"uv ended with status {done.returncode}"
        raise UserError(f"cannot make the environment of image {image} from {images.lock_file(image)}: {reason}")


def _interpreter() -> str:
    """This interpreter when it is the right version; else the version, which uv looks for."""
    mine = f"{sys.version_info.major}.{sys.version_info.minor}"
    return sys.executable if mine == PYTHON_VERSION else PYTHON_VERSION
