"""The code that local steps run: a snapshot of this project, kept under the hash of its content.

An image carries this project's wheel and `kfp` without its dependencies. Here a folder stands in for both: a
copy of `kfp_hybrid` as it is now, so that editing a file never disturbs a run that is under way, beside a link
to the installed `kfp`.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import kfp

import kfp_hybrid
from kfp_hybrid import components, pipelines


def snapshot(cache: Path) -> Path:
    """The folder to put on a step's import path; its name is the hash of what it holds."""
    files = dict(_source_files())
    folder = cache / "code" / _fingerprint(files)
    if not folder.is_dir():
        _copy(files, folder)
    return folder


def _source_files() -> Iterator[tuple[Path, Path]]:
    """(path below `kfp_hybrid`, file), whether this project is installed as a wheel or editable."""
    # The packages' own paths differ: an editable install maps them to three folders of the repository.
    for package, prefix in ((kfp_hybrid, "."), (components, "components"), (pipelines, "pipelines")):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield Path(prefix) / path.relative_to(root), path


def _fingerprint(files: dict[Path, Path]) -> str:
    digest = hashlib.sha256(f"kfp {kfp.__version__} {kfp.__file__}\0".encode())
    for relative, path in sorted(files.items()):
        digest.update(f"{relative}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _copy(files: dict[Path, Path], folder: Path) -> None:
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    for relative, path in files.items():
        target = unfinished / "kfp_hybrid" / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (unfinished / "kfp").symlink_to(Path(kfp.__file__).parent)
    try:
        unfinished.rename(folder)
    except OSError:  # another run was quicker; its copy is the same
        shutil.rmtree(unfinished)
        if not folder.is_dir():
            raise
