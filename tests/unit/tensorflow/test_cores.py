"""How many cores a step may use."""

import os

import pytest

from kfp_hybrid.cores import available_cores


@pytest.mark.parametrize(("limit", "cores"), [("100000 100000", 1), ("50000 100000", 1), ("3200000 100000", None)])
def test_a_container_limit_counts_unless_the_machine_has_less(limit, cores, tmp_path):
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert available_cores(tmp_path / "cpu.max") == min(cores or 32, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("limit", ["max 100000", ""])
def test_without_a_limit_all_cores_of_the_process_count(limit, tmp_path):
    (tmp_path / "cpu.max").write_text(limit)
    assert available_cores(tmp_path / "cpu.max") == len(os.sched_getaffinity(0))
    assert available_cores(tmp_path / "none") == len(os.sched_getaffinity(0))
