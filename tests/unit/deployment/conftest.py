"""Folders to publish, a child process to do it in, and a reader of the destination that trusts nobody."""

import hashlib
import json
import os
import pickle
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from retry_clock import retry_clock  # noqa: F401


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., str]:
    """Makes a folder shaped like a SavedModel; the same arguments give the same content."""
    made = iter(range(1_000_000))

    def make(content: str = "weights", **more: bytes) -> str:
        files = {
            "saved_model.pb": b"graph",
            "variables/variables.index": b"index",
            "variables/variables.data-00000-of-00001": content.encode() * 100,
            "assets.extra/preprocessing.json": b"{}",
        }
        return str(write_files(tmp_path / f"model-{next(made)}", files | more))

    return make


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., str]:
    """Makes a folder shaped like an edge bundle."""
    made = iter(range(1_000_000))

    def make(content: str = "flatbuffer") -> str:
        files = {"model.tflite": content.encode(), "manifest.json": b"{}", "labels.json": b"[]"}
        return str(write_files(tmp_path / f"bundle-{next(made)}", files))

    return make


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A temporary folder that every user of the machine may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


class Child:
    """A forked process that runs `work`; it can be killed without harm to the tests."""

    def __init__(self, work: Callable[[], Any]) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            self._run(work, writer)
        os.close(writer)
        self._reader = reader
        self._ended = False

    @staticmethod
    def _run(work: Callable[[], Any], writer: int) -> None:
        status = 70
        try:
            try:
                outcome = work()
            except Exception as error:
                outcome = error
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(pickle.dumps(outcome))
            status = 0
        except SystemExit as leave:
            status = int(leave.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def end(self) -> None:
        if not self._ended:
            self.kill()
            self.result()

    def result(self) -> tuple[int, Any]:
        """The exit status (minus the signal that ended it) and what `work` returned or raised, None if it was ended."""
        with os.fdopen(self._reader, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self.pid, 0)
        self._ended = True
        return os.waitstatus_to_exitcode(status), pickle.loads(data) if data else None


@pytest.fixture
def child() -> Iterator[Callable[[Callable[[], Any]], Child]]:
    """Starts children; none outlives its test."""
    started = []

    def start(work: Callable[[], Any]) -> Child:
        started.append(Child(work))
        return started[-1]

    yield start
    for each in started:
        each.end()


def versions_on_disk(destination: Path) -> dict[int, str]:
    """Check every visible version by its manifest, without the code under test; return the digest of each."""
    found = {}
    for folder in destination.iterdir():
        if folder.name.isdigit():
            manifest = json.loads((folder / "MANIFEST.json").read_text())
            files = {
                path.relative_to(folder).as_posix(): {
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "bytes": path.stat().st_size,
                }
                for path in folder.rglob("*")
                if path.is_file() and path != folder / "MANIFEST.json"
            }
            assert files == manifest["files"], folder
            assert manifest["version"] == int(folder.name)
            found[int(folder.name)] = manifest["digest"]
    return dict(sorted(found.items()))


@pytest.fixture
def consistent() -> Callable[[Path], list[int]]:
    """Asserts what must hold at any moment: every version is whole, and LATEST names one. Returns their numbers."""

    def check(destination: Path) -> list[int]:
        latest = destination / "LATEST"  # read first: somebody may be publishing right now
        number = int(latest.read_text()) if latest.exists() else None
        found = versions_on_disk(destination)
        assert number is None or number in found
        return list(found)

    return check


@pytest.fixture
def tidy() -> Callable[[Path], None]:
    """Asserts that nothing hidden is left but the lock."""

    def check(destination: Path) -> None:
        assert {path.name for path in destination.iterdir() if path.name.startswith(".")} <= {".lock"}

    return check
