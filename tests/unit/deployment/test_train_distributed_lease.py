"""The sign of life of the launching step; each node is a process, since it ends."""

import subprocess
import sys

import pytest

from kfp_hybrid.components.training.train_distributed import lease
from kfp_hybrid.components.training.train_distributed.lease import NAME, Lease
from kfp_hybrid.storage import StorageError

NODE = """
import sys, time
from kfp_hybrid.components.training.train_distributed.lease import end_when_abandoned
end_when_abandoned(sys.argv[1], 4.0)
time.sleep(300)
"""
NODE_ON_DEMAND = """
import sys, threading, types
from kfp_hybrid.components.training.train_distributed import lease
now = 0.0
def sleep(seconds):  # until the test writes a line; only this takes time
    global now
    print("waits", flush=True)
    sys.stdin.readline()
    now += seconds
lease.time = types.SimpleNamespace(monotonic=lambda: now, sleep=sleep)
lease.end_when_abandoned(sys.argv[1], 4.0)
threading.Event().wait(300)
"""


@pytest.fixture
def start(tmp_path):
    """Starts a node, a process that waits for ever unless its lease ends."""
    processes = []

    def run(code):
        command = [sys.executable, "-c", code, f"file://{tmp_path}"]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def test_a_node_that_nobody_waits_for_ends_as_after_a_mistake_so_that_it_is_not_started_again(start):
    node = start(NODE)
    output, _ = node.communicate(timeout=120)
    assert node.returncode == 1
    assert output == "error: the launching step has not been heard of for 4 s; nobody waits\n"


def test_a_node_goes_on_while_the_lease_is_renewed_and_ends_when_it_is_no_more(start, tmp_path):
    node = start(NODE_ON_DEMAND)
    for look in range(30):
        if node.stdout.readline() != "waits\n":
            break
        if look < 20:
            (tmp_path / NAME).write_text(str(look // 2))  # at every other look
        print(file=node.stdin, flush=True)
    assert look == 18 + 4 + 1, "four looks of a second each after the last renewal"
    assert node.wait(120) == 1


def test_the_lease_is_renewed_at_times_and_not_at_every_look(tmp_path, monkeypatch):
    clock = iter([0.0, 1.0, 59.0, 61.0, 62.0])
    monkeypatch.setattr(lease.time, "monotonic", lambda: next(clock))
    writes = []
    kept = Lease(f"file://{tmp_path}")
    monkeypatch.setattr(kept._store, "write_bytes", lambda key, data: writes.append(key))
    for _ in range(5):
        kept.renew()
    assert writes == [NAME, NAME]


def test_a_store_that_fails_does_not_end_the_step(tmp_path, caplog):
    (tmp_path / "file").write_text("no folder can be made here")
    kept = Lease(f"file://{tmp_path}/file/staging")
    with pytest.raises(StorageError):
        kept._store.write_bytes(NAME, b"")
    kept.renew()
    assert "cannot tell the nodes that they are waited for" in caplog.text
