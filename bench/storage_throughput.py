"""Throughput of `kfp_hybrid.storage` against `rclone copy`, both to and from one `rclone serve s3` on the loopback.

A few large objects and many small ones go up and come back; each side is measured in turns and the best time of each
counts. Client and server share the cores, so that what is measured is mostly processor time per byte and per object.
Usage: python bench/storage_throughput.py [--large-mib 256] [--small 2000] [--rounds 3]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "servers"))

from s3_server import ACCESS_KEY, SECRET_KEY, S3Server, rclone, serve_s3

LARGE_OBJECTS = 4
SMALL_BYTES = 4096


def make(folder: Path, count: int, size: int) -> Path:
    folder.mkdir()
    for number in range(count):
        with (folder / f"{number}").open("wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - start)))
    return folder


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


def ours(verb: str, source: str, target: str) -> list[str]:
    at_home = (
        [source, target.replace("peer:", "s3://")] if verb == "upload" else [source.replace("peer:", "s3://"), target]
    )
    return [sys.executable, "-m", "kfp_hybrid.storage", verb, *at_home]


def theirs(verb: str, source: str, target: str) -> list[str]:
    return [rclone(), "copy", "--config", os.devnull, source, target]


def seconds(command: list[str], environ: dict[str, str]) -> float:
    started = time.monotonic()
    subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def measure(tree: Path, server: S3Server, work: Path, rounds: int) -> dict[tuple[str, str], float]:
    best: dict[tuple[str, str], float] = {}
    sides: dict[str, Callable[[str, str, str], list[str]]] = {"ours": ours, "rclone": theirs}
    environ = environment(server)
    for number in range(rounds):
        for name, command in sides.items():
            bucket, back = server.make_bucket(), work / f"back-{name}-{number}"
            for verb, words in (
                ("upload", (str(tree), f"peer:{bucket}/t")),
                ("download", (f"peer:{bucket}/t", str(back))),
            ):
                took = seconds(command(verb, *words), environ)
                best[verb, name] = min(took, best.get((verb, name), took))
            subprocess.run(["diff", "-r", str(tree), str(back)], check=True)
            shutil.rmtree(back)
            shutil.rmtree(server.folder / bucket)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large-mib", type=int, default=256)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        trees = {
            f"{LARGE_OBJECTS} objects of {given.large_mib} MiB": make(
                work / "large", LARGE_OBJECTS, given.large_mib << 20
            ),
            f"{given.small} objects of {SMALL_BYTES} bytes": make(work / "small", given.small, SMALL_BYTES),
        }
        with serve_s3(work / "s3") as server:
            for title, tree in trees.items():
                size = sum(path.stat().st_size for path in tree.iterdir()) / 1e6
                best = measure(tree, server, work, given.rounds)
                for verb in ("upload", "download"):
                    mine, peer = best[verb, "ours"], best[verb, "rclone"]
                    print(
                        f"{verb} {title}: {mine:.1f} s ({size / mine:.0f} MB/s), "
                        f"rclone {peer:.1f} s ({size / peer:.0f} MB/s), ratio {peer / mine:.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
