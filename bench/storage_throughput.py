"""Throughput of `kfp_hybrid.storage` against `rclone copy` and the bare client, with one `rclone serve s3`.

A few large objects and many small ones go up and come back over the loopback. The three take turns, and the best time
of each counts. All fetch the same objects, of which the server knows the MD5 by then: it works that out when it is
first asked, which would count against who comes first.

* rclone: `rclone copy` as it comes; it compares the MD5 of what it fetched with the store's.
* sha256: the same download, and then `rclone checksum sha256`, which compares what ours compares. It is no part of the
  plain comparison; it tells what the same guarantee costs with rclone.
* minio: `put_object` and `get_object` of the minio client in 16 threads, as `mc` copies; it compares nothing of what
  it fetched, and writes files in place.
* ours: compares the sha256, writes files whole or not at all, and could go on where it was stopped.

Client and server share the cores, so that the processor time of both is what is measured; it is printed, too, for it
tells more than the time that passes on a machine that does other work. Ratios are those of the other to ours, first of
the time that passed, then of the processor time. Usage:

    python bench/storage_throughput.py [--large-mib 256] [--small 10000] [--rounds 3] [--folder /dev/shm]
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from minio import Minio

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))

from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, rclone, serve_s3

LARGE_OBJECTS = 4
SMALL_BYTES = 4096
SIDES = {"upload": ("ours", "rclone", "minio"), "download": ("ours", "rclone", "sha256", "minio")}
BARE_CLIENT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import urllib3
from minio import Minio

verb, folder, host, bucket, access_key, secret_key = sys.argv[1:]
http = urllib3.PoolManager(maxsize=16)
client = Minio(host, access_key, secret_key, secure=False, region="us-east-1", http_client=http)

def put(name):
    client.fput_object(bucket, name, f"{folder}/{name}")

def get(name):
    answer = client.get_object(bucket, name)
    with (Path(folder) / name).open("wb") as file:
        for piece in answer.stream(1 << 20):
            file.write(piece)
    answer.release_conn()

if verb == "upload":
    work, names = put, [path.name for path in Path(folder).iterdir()]
else:
    Path(folder).mkdir()
    work, names = get, [item.object_name for item in client.list_objects(bucket, recursive=True)]
with ThreadPoolExecutor(16) as executor:
    list(executor.map(work, names))
"""


@dataclass(frozen=True)
class Took:
    """How long a command took, in seconds."""

    passed: float
    client: float  # processor time
    server: float

    @property
    def processor(self) -> float:
        return self.client + self.server

    def __add__(self, other: "Took") -> "Took":
        return Took(self.passed + other.passed, self.client + other.client, self.server + other.server)

    def __str__(self) -> str:
        return f"{self.passed:.1f} s (processor: client {self.client:.1f}, server {self.server:.1f})"


def make(folder: Path, count: int, size: int) -> Path:
    folder.mkdir()
    for number in range(count):
        with (folder / f"{number}").open("wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - start)))
    return folder


def digests(tree: Path, path: Path) -> Path:
    """The sha256 of all files, as `sha256sum` writes them."""
    lines = (f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(tree.iterdir()))
    path.write_text("".join(lines))
    return path


def environment(server: S3Server) -> dict[str, str]:
    return {
        **os.environ,
        "S3_ENDPOINT": server.url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "RCLONE_CONFIG_PEER_TYPE": "s3",
        "RCLONE_CONFIG_PEER_PROVIDER": "Rclone",
        "RCLONE_CONFIG_PEER_ENDPOINT": server.url,
        "RCLONE_CONFIG_PEER_ACCESS_KEY_ID": ACCESS_KEY,
        "RCLONE_CONFIG_PEER_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def command(side: str, verb: str, folder: Path, bucket: str, server: S3Server) -> list[str]:
    if side == "minio":
        host = server.url.removeprefix("http://")
        return [sys.executable, "-c", BARE_CLIENT, verb, str(folder), host, bucket, ACCESS_KEY, SECRET_KEY]
    places = [str(folder), f"{'s3://' if side == 'ours' else 'peer:'}{bucket}"]
    if verb == "download":
        places.reverse()
    if side == "ours":
        return [sys.executable, "-m", "kfp_hybrid.storage", verb, *places]
    return [rclone(), "copy", "--config", os.devnull, *places]


def run(words: list[str], server: S3Server) -> Took:
    before, started = processor_seconds(server), time.monotonic()
    process = subprocess.Popen(words, env=environment(server), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    passed = time.monotonic() - started
    if status:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), words[:4])
    return Took(passed, usage.ru_utime + usage.ru_stime, processor_seconds(server) - before)


def processor_seconds(server: S3Server) -> float:
    """What the server has used so far."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def list_all(server: S3Server, bucket: str) -> None:
    """Let the server work out the MD5 of all that is in the bucket."""
    host = server.url.removeprefix("http://")
    client = Minio(host, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")
    assert sum(1 for _ in client.list_objects(bucket, recursive=True))


def measure(tree: Path, server: S3Server, work: Path, rounds: int) -> dict[tuple[str, str], Took]:
    best: dict[tuple[str, str], Took] = {}
    sums = digests(tree, work / f"{tree.name}.sha256")
    for _ in range(rounds):
        buckets = {side: server.make_bucket() for side in SIDES["upload"]}
        turns = [("upload", side, tree, buckets[side]) for side in SIDES["upload"]]
        turns += [("download", side, work / f"back-{side}", buckets["ours"]) for side in SIDES["download"]]
        for verb, side, folder, bucket in turns:
            if verb == "download":
                list_all(server, bucket)
            took = run(command(side, verb, folder, bucket, server), server)
            if side == "sha256":
                took += run([rclone(), "checksum", "--config", os.devnull, "sha256", str(sums), str(folder)], server)
            best[verb, side] = min(took, best.get((verb, side), took), key=lambda took: took.passed)
            if verb == "download":
                subprocess.run(["diff", "-r", str(tree), str(folder)], check=True)
                shutil.rmtree(folder)
        for bucket in buckets.values():
            shutil.rmtree(server.folder / bucket)
    return best


def report(title: str, best: dict[tuple[str, str], Took]) -> None:
    for verb, sides in SIDES.items():
        print(f"{verb} {title}")
        ours = best[verb, "ours"]
        print(f"  {'ours':7}{ours}")
        for side in sides[1:]:
            took = best[verb, side]
            ratios = f"{took.passed / ours.passed:.2f}, of processor time {took.processor / ours.processor:.2f}"
            print(f"  {side:7}{took}, ratio {ratios}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large-mib", type=int, default=256, help="size of the large objects; 0 leaves them out")
    parser.add_argument("--small", type=int, default=10_000, help="how many small ones; 0 leaves them out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where the files go; in memory the disk does not count")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        work = Path(folder)
        trees = {}
        if given.large_mib:
            title = f"{LARGE_OBJECTS} objects of {given.large_mib} MiB"
            trees[title] = make(work / "large", LARGE_OBJECTS, given.large_mib << 20)
        if given.small:
            trees[f"{given.small} objects of {SMALL_BYTES} bytes"] = make(work / "small", given.small, SMALL_BYTES)
        with serve_s3(work / "s3") as server:
            for title, tree in trees.items():
                report(title, measure(tree, server, work, given.rounds))


if __name__ == "__main__":
    main()
