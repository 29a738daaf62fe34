import subprocess
import sys

import numpy as np
import pytest

from kfp_hybrid.checkpoints import checkpoint_folder, fingerprint
from kfp_hybrid.components.training.train_model.checkpoints import State, load, save
from kfp_hybrid.step import StepError

STATE = State(
    epochs=2,
    stopped=True,
    history=[{"loss": 0.1 + 0.2, "val_loss": 0.5}, {"loss": 0.25, "val_loss": 0.75}],
    weights=[np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.int64)],
    optimizer=[np.array(7, np.int64)],
    best_weights=[np.zeros((2, 3), np.float32), np.array([0, 0], np.int64)],
)


def assert_equal(state, other):
    assert (state.epochs, state.stopped, state.history) == (other.epochs, other.stopped, other.history)
    for kind in ("weights", "optimizer", "best_weights"):
        ours, theirs = getattr(state, kind), getattr(other, kind)
        assert [a.dtype for a in ours] == [a.dtype for a in theirs]
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_state_comes_back_as_it_was(tmp_path):
    assert load(tmp_path) is None
    save(tmp_path, State())
    save(tmp_path, STATE)
    assert_equal(load(tmp_path), STATE)


def test_more_than_nine_arrays_keep_their_order(tmp_path):
    save(tmp_path, State(epochs=1, weights=[np.array(i) for i in range(1200)]))
    assert [int(a) for a in load(tmp_path).weights] == list(range(1200))


def test_the_published_epoch_is_the_best_with_early_stopping_and_the_last_without():
    assert STATE.published_epoch == 0
    assert State(epochs=2, history=STATE.history).published_epoch == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"nonsense"])
def test_a_damaged_checkpoint_is_ignored_with_a_warning(tmp_path, content, caplog):
    (tmp_path / "checkpoint.npz").write_bytes(content)
    assert load(tmp_path) is None
    assert "training starts from the beginning" in caplog.text


def test_a_checkpoint_is_replaced_whole(tmp_path):
    save(tmp_path, STATE)
    (tmp_path / ".checkpoint.npz.unfinished").write_bytes(b"a killed process left this")
    assert_equal(load(tmp_path), STATE)
    save(tmp_path, STATE)
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


def test_the_fingerprint_depends_on_everything_but_the_order_of_keys():
    assert fingerprint({"a": 1, "b": [2, 3]}) == fingerprint({"b": [2, 3], "a": 1})
    assert fingerprint({"a": 1, "b": [2, 3]}) != fingerprint({"a": 1, "b": [3, 2]})


def test_success_removes_the_folder_and_failure_keeps_it(tmp_path):
    with pytest.raises(KeyboardInterrupt), checkpoint_folder(tmp_path, "abc") as folder:
        save(folder, STATE)
        raise KeyboardInterrupt
    with checkpoint_folder(tmp_path, "abc") as folder:
        assert_equal(load(folder), STATE)
    assert list(tmp_path.iterdir()) == []


def test_equal_trainings_at_once_do_not_share_a_folder(tmp_path):
    with checkpoint_folder(tmp_path, "abc") as first:
        save(first, STATE)
        with checkpoint_folder(tmp_path, "abc") as second:
            assert second != first
            assert load(second) is None
            save(second, State(epochs=1))
        assert not second.exists()
        assert_equal(load(first), STATE)
    with checkpoint_folder(tmp_path, "abc") as third:
        assert load(third) is None


def test_the_lock_goes_with_a_killed_process(tmp_path):
    code = (
        "import os, sys, pathlib; from kfp_hybrid.checkpoints import *\n"
        "from kfp_hybrid.components.training.train_model.checkpoints import *\n"
        "with checkpoint_folder(pathlib.Path(sys.argv[1]), 'abc') as folder:\n"
        "    save(folder, State(epochs=5)); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with checkpoint_folder(tmp_path, "abc") as folder:
        assert folder.name == "abc"
        assert load(folder).epochs == 5


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StepError, match=r"checkpoint_dir .*file cannot be used"),
        checkpoint_folder(tmp_path / "file", "abc"),
    ):
        pass
