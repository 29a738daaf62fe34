"""Which version answers a request."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_hybrid.errors import UserError
from kfp_hybrid.serving.routing import Deployed, Router, Served, position

percentages = st.floats(0, 100)
keys = st.text(min_size=1)


def deployed(version):
    return Deployed(SimpleNamespace(version=version), SimpleNamespace())


def router_with_canary(percent, version="2"):
    router = Router(deployed("1"))
    router.canary(deployed(version), percent)
    return router


@given(keys, percentages, percentages)
def test_raising_the_percentage_only_moves_keys_to_the_candidate(key, one, other):
    low, high = sorted((one, other))
    if router_with_canary(low).choose(key).version == "2":
        assert router_with_canary(high).choose(key).version == "2"


@given(keys, percentages)
def test_a_key_always_gets_the_same_version(key, percent):
    assert router_with_canary(percent).choose(key).version == router_with_canary(percent).choose(key).version


@given(keys)
def test_all_keys_are_the_candidates_at_100_percent_and_none_at_0(key):
    assert 0 <= position(key, "2") < 100
    assert router_with_canary(100).choose(key).version == "2"
    assert router_with_canary(0).choose(key).version == "1"


@pytest.mark.parametrize("percent", [1, 5, 50, 90])
def test_the_candidate_gets_its_share_of_the_keys(percent):
    router = router_with_canary(percent)
    share = np.mean([router.choose(f"user-{i}").version == "2" for i in range(20_000)])
    assert share * 100 == pytest.approx(percent, abs=5 * np.sqrt(percent * (100 - percent) / 20_000))


def test_without_a_key_requests_are_shared_out_at_random():
    router = router_with_canary(50)
    assert {router.choose().version for _ in range(200)} == {"1", "2"}


def test_each_candidate_gets_other_keys_first():
    users = [f"user-{i}" for i in range(1000)]
    first = {user for user in users if position(user, "2") < 10}
    second = {user for user in users if position(user, "3") < 10}
    assert len(first & second) < len(first) / 2


def test_a_rollback_brings_back_the_version_before_and_ends_the_canary():
    router = router_with_canary(100)
    candidate = router.routes.candidate
    router.switch(candidate)
    assert router.choose("any").version == "2"
    assert router.rollback() is candidate
    assert router.choose("any").version == "1"
    assert router.routes.candidate is None


def test_there_is_nothing_to_roll_back_to_at_first():
    with pytest.raises(UserError, match="no version to go back to"):
        Router(deployed("1")).rollback()


def test_switching_keeps_a_canary_of_another_version():
    router = router_with_canary(10, "3")
    router.switch(deployed("2"))
    assert (router.routes.primary.version, router.routes.candidate.version, router.routes.percent) == ("2", "3", 10)


def test_a_request_may_name_the_version_that_answers_it():
    router = router_with_canary(1)
    assert router.version("1").version == "1"
    assert router.version("2").version == "2"
    assert router.version("3") is None


def test_the_shadow_never_answers():
    router = Router(deployed("1"))
    router.mirror(deployed("2"), 100)
    assert {router.choose(f"user-{i}").version for i in range(100)} == {"1"}
    assert router.version("2") is None


@pytest.mark.parametrize("percent", [-1, 100.1, float("nan")])
def test_a_share_is_a_percentage(percent):
    router = Router(deployed("1"))
    with pytest.raises(UserError, match="between 0 and 100"):
        router.canary(deployed("2"), percent)
    with pytest.raises(UserError, match="between 0 and 100"):
        router.mirror(deployed("2"), percent)
    assert router.routes.candidate is None


def test_an_observer_that_fails_keeps_nothing_from_the_others(caplog):
    router, seen = Router(deployed("1")), []
    router.observers += [lambda served: 1 / 0, seen.append]
    served = Served(None, None, np.zeros((1, 1), np.float32), 0.001, "v1", "")
    router.notify(served)
    assert seen == [served]
    assert "an observer of answered requests failed" in caplog.text
