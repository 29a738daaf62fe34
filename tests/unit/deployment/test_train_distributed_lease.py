"""The sign of life of the launching step; each node is a process, since it ends."""

import subprocess
import sys
import time

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


@pytest.fixture
def node(tmp_path):
    """A process that waits for ever unless its lease ends."""
    process = subprocess.Popen([sys.executable, "-c", NODE, f"file://{tmp_path}"], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_a_node_that_nobody_waits_for_ends_as_after_a_mistake_so_that_it_is_not_started_again(node):
    output, _ = node.communicate(timeout=60)
    assert node.returncode == 1
    assert output == "error: the launching step has not been heard of for 4 s; nobody waits\n"


def test_a_node_goes_on_while_the_lease_is_renewed(node, tmp_path):
    for renewal in range(32):
        (tmp_path / NAME).write_text(str(renewal))
        time.sleep(0.25)
    assert node.poll() is None
    node.communicate(timeout=60)
    assert node.returncode == 1, "and ends when it is no more"


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
