"""What this machine knows of its runs: a file in each run's folder, which other commands read."""

import datetime
import json
import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kfp_hybrid.errors import UserError
from kfp_hybrid.targets.runs import RunStatus, StepStatus

FILE_NAME = "run.json"
LOCK_NAME = ".running"  # held by the process that runs the pipeline, so that nobody else has to trust a process number


class RunRecord:
    """Keeps the file of one run up to date while it goes on; a context manager."""

    def __init__(self, folder: Path, steps: Callable[[], Iterable[StepStatus]]) -> None:
        self._folder = folder
        self._steps = steps
        self._created = datetime.datetime.now(datetime.timezone.utc)
        self._running = FileLock(folder / LOCK_NAME)
        self._writing = threading.Lock()

    def __enter__(self) -> "RunRecord":
        self._running.acquire()
        self.write("running")
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None:
            self.write("failed" if issubclass(kind, Exception) else "cancelled")
        self._running.release()
        (self._folder / LOCK_NAME).unlink(missing_ok=True)

    def write(self, state: str, message: str = "") -> None:
        """Note the run's state and where its steps stand."""
        record = {
            "state": state,
            "message": message,
            "created": self._created.isoformat(),
            "process": os.getpid(),
            "steps": [vars(step) for step in self._steps()],
        }
        with self._writing:  # the steps of a loop run in threads
            temporary = self._folder / f".{FILE_NAME}"
            temporary.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
            temporary.replace(self._folder / FILE_NAME)


def status(folder: Path) -> RunStatus:
    """Where the run in `folder` stands.

    Raises:
        UserError: there is no such run.
    """
    record = _read(folder)
    if record["state"] == "running" and not _is_running(folder):
        record = _read(folder)  # it may have ended since, and said how
        if record["state"] == "running":
            record |= {"state": "failed", "message": "its process was killed"}
    return RunStatus(
        id=folder.name,
        name=folder.name.rsplit("-", 3)[0],
        state=record["state"],
        created=datetime.datetime.fromisoformat(record["created"]),
        url=str(folder.absolute()),
        message=record["message"],
        steps=tuple(StepStatus(**step) for step in record["steps"]),
    )


def newest(folder: Path, limit: int) -> list[RunStatus]:
    """The newest runs below `folder`."""
    records = sorted(folder.glob(f"*/{FILE_NAME}"), key=lambda file: file.parent.name.rsplit("-", 3)[1:], reverse=True)
    return [status(record.parent) for record in records[:limit]]


def stop(folder: Path) -> None:
    """Ask the process of a run to stop its steps and end.

    Raises:
        UserError: there is no such run, or its process belongs to somebody else.
    """
    record = _read(folder)
    if _is_running(folder):
        try:
            os.kill(record["process"], signal.SIGTERM)
        except PermissionError:
            raise UserError(f"run {folder.name} belongs to another user; ask them to cancel it") from None


def _is_running(folder: Path) -> bool:
    if not (folder / LOCK_NAME).exists():
        return False
    try:
        with FileLock(folder / LOCK_NAME, timeout=0):
            return False
    except Timeout:
        return True


def _read(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / FILE_NAME).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no run {folder.name} in {folder.parent}; `kfp-hybrid runs` lists them") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / FILE_NAME}: {error}") from None
