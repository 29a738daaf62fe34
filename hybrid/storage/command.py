"""The command `sync`, and what a person sees while data move."""

import logging
import threading
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

LINE_SECONDS = 5.0

log = logging.getLogger(__name__)


@click.command()
@click.argument("source")
@click.argument("target")
@click.option("--delete", is_flag=True, help="Also delete at TARGET what SOURCE does not have.")
@click.option("--verify", is_flag=True, help="Afterwards read both sides again and compare their sha256.")
def sync(source: str, target: str, delete: bool, verify: bool) -> None:
    """Make TARGET hold what SOURCE holds: folders, s3://, minio:// or gs://, any to any.

    What TARGET has already is not copied again, so that a sync that was stopped goes on where it was. Nothing is
    deleted unless --delete is given.
    """
    from kfp_hybrid import storage

    with Display() as display:
        transfer = storage.sync(source, target, delete=delete, verify=verify, progress=display)
    click.echo(transfer)


class Display:
    """A bar with bytes per second on a terminal, a line now and then elsewhere; a context manager."""

    def __init__(self, console: "Console | None" = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bar

        console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
                   TimeRemainingColumn())  # fmt: skip
        self._bar = Bar(*columns, console=console) if console.is_terminal else None
        self._task = self._bar.add_task("comparing", total=None) if self._bar else None
        self._lock = threading.Lock()
        self._objects, self._size, self._finished, self._copied = 0, 0, 0, 0
        self._started = self._said = time.monotonic()

    def __enter__(self) -> "Display":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def planned(self, objects: int, size: int) -> None:
        """So much is to be copied."""
        self._objects, self._size = objects, size
        self._started = self._said = time.monotonic()
        self._show()

    def copied(self, size: int) -> None:
        """So many more bytes were."""
        with self._lock:
            self._copied += size
            if self._bar is None and time.monotonic() - self._said > LINE_SECONDS:
                self._said = time.monotonic()
                speed = self._copied / 1e6 / (self._said - self._started)
                log.info(
                    "%d of %d objects, %.1f of %.1f MB, %.1f MB/s",
                    *(self._finished, self._objects, self._copied / 1e6, self._size / 1e6, speed),
                )
            self._show()

    def finished(self, key: str) -> None:
        """One more object is there."""
        with self._lock:
            self._finished += 1
            self._show()

    def _show(self) -> None:
        if self._bar and self._task is not None:
            text = f"{self._finished}/{self._objects}"
            self._bar.update(self._task, description=text, completed=self._copied, total=self._size)
