"""A local step whose input lies in a store runs again when the input has changed, and only then."""

from pathlib import Path

import pytest
from faulty_proxy import SLOW_DOWN
from kfp import dsl

from kfp_hybrid import storage
from kfp_hybrid.targets.local import kfp_hooks


@pytest.fixture
def said():
    """What was said of steps that are not cached."""
    return []


@pytest.fixture
def step_cache(tmp_path, said):
    return kfp_hooks.StepCache(
        str(tmp_path / "cache"),
        version="1",
        on_hit=lambda *hit: None,
        on_unknown=lambda *step: said.append(step),
    )


@pytest.fixture
def key(step_cache):
    return lambda **arguments: step_cache.compute_key("comp-read", "image", ["python3"], arguments)


@pytest.mark.parametrize("kind", ["s3", "gs"])
@pytest.mark.parametrize("spelling", ["{}/in", "{}/in/", "{}/in/data.csv", "{}/in/*.csv", "{}/**"])
def test_a_key_changes_with_the_objects_that_an_argument_names(request, key, kind, spelling):
    place = request.getfixturevalue(kind)
    argument, keys = spelling.format(place), []
    for content in (b"one", b"two", b"three"):
        storage.open_store(place).write_bytes("in/data.csv", content)
        keys += [key(source=argument), key(source=argument)]
    assert len(set(keys)) == 3
    storage.open_store(place).write_bytes("in/more.csv", b"")
    is_one_object = spelling.endswith("data.csv")
    assert (key(source=argument) == keys[-1]) == is_one_object


def test_a_key_changes_with_the_object_of_an_artifact(key, s3):
    artifact, keys = dsl.Dataset(uri=f"{s3}/data.csv"), []
    for content in (b"one", b"two"):
        storage.open_store(s3).write_bytes("data.csv", content)
        keys.append(key(data=artifact))
    assert keys[0] != keys[1]


def test_objects_elsewhere_do_not_change_a_key(key, s3):
    storage.open_store(s3).write_bytes("in/data.csv", b"one")
    before = key(source=f"{s3}/in")
    storage.open_store(s3).write_bytes("in-2/data.csv", b"one")
    assert key(source=f"{s3}/in") == before


def test_a_step_is_not_cached_when_its_store_does_not_tell_what_is_there(
    step_cache, key, said, faults, s3, monkeypatch
):
    monkeypatch.setenv("KFP_HYBRID_STORAGE_DEADLINE_SECONDS", "0")
    storage.open_store(s3).write_bytes("data.csv", b"one")
    faults.fault = lambda request: SLOW_DOWN
    for _ in range(2):
        found = key(source=s3)
        assert step_cache.get(found) is None
        step_cache.put(found, {"rows": 1})
    assert [step for step, _ in said] == ["read", "read"]
    assert "HTTP status 503" in str(said[0][1])
    assert not list(Path(step_cache.cache_root).iterdir())
    faults.fault = lambda request: None
    step_cache.put(key(source=s3), {"rows": 1})
    assert step_cache.get(key(source=s3)) == {"rows": 1}


def test_asking_a_store_for_its_state_does_not_take_as_long_as_a_transfer_may(
    key, said, faults, s3, caplog, retry_clock
):
    """The step has its own patience; here it would be 60 seconds."""
    faults.fault = lambda request: SLOW_DOWN
    key(source=s3)
    assert said
    assert "trying for at most 10 s" in caplog.text
