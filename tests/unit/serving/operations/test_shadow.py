"""The shadow predicts what was answered already, and is compared."""

import asyncio

import numpy as np
import pytest

from kfp_hybrid.serving.routing import Router
from kfp_hybrid.serving.servable import Feature
from kfp_hybrid.serving.shadow import BUSY_ROWS, Shadow


@pytest.fixture
def primary(sums, tmp_path):
    return sums.deploy(tmp_path / "primary", 1)


@pytest.fixture
def candidate(sums, tmp_path):
    return sums.deploy(tmp_path / "candidate", 2)


def mirrored(primary, candidate, *requests, percent=100, before=lambda: None):
    """What the shadow counts after these requests were answered."""

    async def scenario():
        router = Router(primary)
        router.mirror(candidate, percent)
        shadow = Shadow(router)
        before()
        for served in requests:
            shadow.observe(served)
        await candidate.batcher.drain()
        return shadow

    return asyncio.run(scenario())


def counts(shadow):
    return {name: value for name, value in vars(shadow).items() if not name.startswith("_") and value}


def test_each_row_is_compared_with_what_was_answered(sums, primary, candidate):
    requests = [sums.served(primary.servable, [1, 2]), sums.served(primary.servable, [3])]
    assert counts(mirrored(primary, candidate, *requests)) == {"rows": 3, "different": 3, "largest": 1000}


def test_equal_scores_are_no_difference(sums, primary, tmp_path):
    same = sums.deploy(tmp_path / "same", 1)
    assert counts(mirrored(primary, same, sums.served(primary.servable, [1, 2], ["red", None]))) == {"rows": 2}


def test_flips_of_the_decision_are_counted(sums, primary, candidate):
    primary.servable.decide = lambda scores: ["late" if score > 2 else "early" for score in scores[:, 0] % 1000]
    candidate.servable.decide = lambda scores: ["late"] * len(scores)
    assert counts(mirrored(primary, candidate, sums.served(primary.servable, [1, 2, 3])))["flips"] == 2


def test_without_a_shadow_nothing_happens(sums, primary):
    shadow = Shadow(Router(primary))
    shadow.observe(sums.served(primary.servable, [1]))
    assert counts(shadow) == {}


@pytest.mark.parametrize("keyed", [True, False])
def test_a_share_of_the_requests_is_mirrored(sums, primary, candidate, keyed):
    served = [sums.served(primary.servable, [i], key=f"user-{i}" if keyed else "") for i in range(400)]
    assert 60 < mirrored(primary, candidate, *served, percent=25).rows < 140


def test_requests_are_shed_while_the_server_is_busy(sums, primary, candidate):
    def busy():
        primary.batcher.queued_rows = BUSY_ROWS + 1

    assert counts(mirrored(primary, candidate, sums.served(primary.servable, [1, 2]), before=busy)) == {"shed": 2}


def test_requests_are_shed_when_the_shadow_does_not_keep_up(sums, primary, tmp_path):
    slow = sums.deploy(tmp_path / "slow", 2, queue_rows=3)
    requests = [sums.served(primary.servable, [1, 2]) for _ in range(5)]
    shadow = mirrored(primary, slow, *requests)
    assert (shadow.rows, shadow.shed) == (2, 8)


def test_a_shadow_that_wants_other_features_fails_and_nothing_else_does(sums, primary, candidate):
    candidate.servable.features = (*candidate.servable.features, Feature("weight", "number", "FP32", True))
    assert counts(mirrored(primary, candidate, sums.served(primary.servable, [1, 2]))) == {"failed": 2}


def test_a_shadow_that_wants_fewer_features_in_another_order_gets_them(sums, primary, candidate):
    seen = []
    candidate.servable.features = candidate.servable.features[::-1]
    candidate.servable.predict = lambda columns: seen.append(list(columns)) or np.zeros((2, 1), np.float32)
    assert mirrored(primary, candidate, sums.served(primary.servable, [1, 2])).rows == 2
    assert seen == [["colour", "x"]]


def broken(columns):
    raise RuntimeError("out of memory")


@pytest.mark.parametrize(
    "predict",
    [broken, lambda columns: np.full((1, 1), np.nan, np.float32), lambda columns: np.zeros((1, 2), np.float32)],
)
def test_errors_and_scores_that_cannot_be_compared_are_counted(sums, primary, candidate, predict):
    candidate.servable.predict = predict
    assert counts(mirrored(primary, candidate, sums.served(primary.servable, [1]))) == {"failed": 1}


def test_what_the_shadow_answered_itself_as_a_candidate_is_not_compared(sums, primary, candidate):
    assert counts(mirrored(primary, candidate, sums.served(candidate.servable, [1]))) == {}
