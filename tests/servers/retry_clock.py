"""Time for retries that passes only in their pauses, which take none."""

import types

import pytest
import tenacity


@pytest.fixture
def retry_clock(monkeypatch):
    """However long a request takes, deadlines of retries see only the pauses between them."""
    passed = [0.0]

    def sleep(seconds: float) -> None:
        passed[0] += seconds

    monkeypatch.setattr(tenacity, "time", types.SimpleNamespace(monotonic=lambda: passed[0]))
    monkeypatch.setattr(tenacity.nap, "time", types.SimpleNamespace(sleep=sleep))
