"""Many small objects are copied by several processes, with the same results and errors as by one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_proxy import Answer

from kfp_hybrid import storage
from kfp_hybrid.storage import StorageError, processes, trees

NAMES = [f"{number % 3} ü/{number}" for number in range(40)] + ["LATEST"]


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(trees, "MANY", 8)
    monkeypatch.setattr(trees, "available_cores", lambda: 2)
    monkeypatch.setattr(processes, "BATCH", 4)


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    found = []
    start = processes._start

    def note():
        found.append(start())
        return found[-1]

    monkeypatch.setattr(processes, "_start", note)
    return found


class Counting(trees.Silent):
    def __init__(self):
        self.keys, self.bytes = [], 0

    def copied(self, size):
        self.bytes += size

    def finished(self, key):
        self.keys.append(key)


def make(folder: Path) -> dict[str, bytes]:
    tree = {name: name.encode() for name in NAMES}
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return tree


def read(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_tree_comes_back_as_it_was(place, started, tmp_path):
    tree, seen = make(tmp_path / "tree"), Counting()
    assert storage.upload(tmp_path / "tree", place, seen).copied == len(tree)
    assert sorted(seen.keys) == sorted(tree)
    assert seen.bytes == sum(map(len, tree.values()))
    storage.download(f"{place}/", tmp_path / "back")
    assert read(tmp_path / "back") == tree
    assert [process.returncode for process in started] == [0] * 4
    assert storage.download(f"{place}/", tmp_path / "back").copied == 0


def test_options_of_a_location_reach_the_processes(s3, s3_server, started, tmp_path, monkeypatch):
    monkeypatch.setenv("S3_ENDPOINT", "http://nothing.invalid")
    tree = make(tmp_path / "tree")
    storage.upload(tmp_path / "tree", f"{s3}?endpoint=127.0.0.1:{s3_server.port}&disableSSL=true")
    assert len(started) == 2
    assert s3_server.files(s3.split("/")[2]) == {f"folder/{key}": data for key, data in tree.items()}


def test_an_error_is_that_of_the_process_and_what_comes_last_is_not_written(faults, s3, started, tmp_path):
    make(tmp_path / "tree")
    denied = Answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    faults.fault = lambda request: denied if request.method == "PUT" and request.path.endswith("/7") else None
    with pytest.raises(StorageError, match="/7: access denied"):
        storage.upload(tmp_path / "tree", s3)
    assert not storage.open_store(s3).exists("LATEST")
    assert all(process.returncode == 0 for process in started)


def test_bytes_that_change_on_the_way_are_an_error_of_the_same_kind(faults, s3, started, tmp_path):
    make(tmp_path / "tree")
    storage.upload(tmp_path / "tree", s3)
    good = storage.open_store(s3).require("0 ü/3")
    headers = {"ETag": f'"{good.tag}"', "x-amz-meta-sha256": good.sha256, "Content-Type": "binary/octet-stream"}
    damaged = Answer(200, b"x" * good.size, headers)
    faults.fault = lambda request: damaged if request.method == "GET" and request.path.endswith("/3") else None
    with pytest.raises(storage.Damaged, match="sha256"):
        storage.download(f"{s3}/", tmp_path / "back")
    assert "0 ü/3" not in read(tmp_path / "back")


def test_a_process_that_is_killed_is_an_error(faults, s3, started, tmp_path):
    make(tmp_path / "tree")
    killed = []

    def kill(request):
        if request.method == "PUT" and not killed:
            killed.append(started[0].pid)
            os.kill(started[0].pid, signal.SIGKILL)

    faults.fault = kill
    with pytest.raises(StorageError, match="ended with status -9; run it again"):
        storage.upload(tmp_path / "tree", s3)
    faults.fault = lambda request: None
    storage.upload(tmp_path / "tree", s3)
    storage.download(f"{s3}/", tmp_path / "back")
    assert read(tmp_path / "back") == read(tmp_path / "tree")


def test_no_process_outlives_the_one_that_started_it():
    process = subprocess.Popen([sys.executable, "-m", processes.__name__], stdin=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.stdin.close()
    process.wait(60)
