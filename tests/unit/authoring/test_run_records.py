"""What other processes read of a run of this machine."""

import pytest

from kfp_hybrid.targets.local import records
from kfp_hybrid.targets.local.records import RunRecord, status


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "hello-20261121-120000-abcdef").mkdir()
    return tmp_path / "hello-20261121-120000-abcdef"


def test_a_run_that_ends_while_it_is_looked_at_has_not_been_killed(folder, monkeypatch):
    is_running = records._is_running
    record = RunRecord(folder, list)
    record.__enter__()

    def end_first(looked_at):
        record.write("succeeded")
        record.__exit__(None)
        return is_running(looked_at)

    monkeypatch.setattr(records, "_is_running", end_first)
    assert status(folder).state == "succeeded"


def test_a_run_whose_process_is_gone_without_a_word_was_killed(folder):
    record = RunRecord(folder, list)
    record.__enter__()
    assert status(folder).state == "running"
    record._running.release()
    assert (status(folder).state, status(folder).message) == ("failed", "its process was killed")
