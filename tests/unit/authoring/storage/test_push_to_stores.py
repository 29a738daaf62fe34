"""push_model publishes to S3 and Google Cloud Storage under the contract that it has for directories."""

import contextlib
import json
import multiprocessing
import random
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from kfp_hybrid import storage
from kfp_hybrid.components.deployment.push_model import publisher
from kfp_hybrid.components.deployment.push_model.publisher import latest_version, list_versions, rollback
from kfp_hybrid.components.deployment.push_model.push import push
from kfp_hybrid.step import StepError


@pytest.fixture(params=["s3", "gs"])
def place(request):
    return f"{request.getfixturevalue(request.param)}/models"


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path, b"one")


def make_model(folder: Path, weights: bytes) -> str:
    root = folder / f"model-{random.getrandbits(32):x}"
    (root / "variables").mkdir(parents=True)
    (root / "saved_model.pb").write_bytes(b"graph")
    (root / "variables/variables.data-00000-of-00001").write_bytes(weights)
    return str(root)


def files(place):
    return {entry.key for entry in storage.open_store(place).entries()}


def test_the_first_push_is_version_1_whole_and_in_use(place, model):
    publication = publisher.publish(place, model=model, blessed=True, reason="good", source={"run": "r"})
    assert publication.copied
    assert publication.version.number == latest_version(place) == 1
    names = {"1/saved_model.pb", "1/variables/variables.data-00000-of-00001", "1/MANIFEST.json", "LATEST"}
    assert files(place) == names
    publication.version.verify()
    manifest = json.loads(storage.open_store(place).read("1/MANIFEST.json"))
    assert manifest["digest"] == publication.version.digest
    assert publication.version.path == f"{place}/1"


def test_the_digest_is_that_of_a_directory(place, model, tmp_path):
    there = publisher.publish(place, model=model, blessed=True).version
    here = publisher.publish(str(tmp_path / "models"), model=model, blessed=True).version
    assert there.digest == here.digest
    assert there.files == here.files


def test_the_same_content_is_not_copied_again(place, model):
    publisher.publish(place, model=model, blessed=True)
    again = publisher.publish(place, model=model, blessed=True)
    assert not again.copied
    assert [version.number for version in list_versions(place)] == [1]


def test_versions_grow_past_those_of_others_and_old_ones_are_retired(place, tmp_path):
    storage.open_store(place).write_bytes("7/by-hand", b"")
    for weights in (b"a", b"b", b"c"):
        publisher.publish(place, model=make_model(tmp_path, weights), blessed=True, keep=2)
    assert [version.number for version in list_versions(place)] == [9, 10]
    assert "7/by-hand" in files(place)
    assert not any(name.startswith(("8/", ".partial/", ".lock/")) for name in files(place))


def test_rollback_checks_the_files_and_points_back(place, tmp_path):
    for weights in (b"a", b"b"):
        publisher.publish(place, model=make_model(tmp_path, weights), blessed=True)
    assert rollback(place, 1).number == latest_version(place) == 1
    storage.open_store(place).write_bytes("2/saved_model.pb", b"grapH")
    with pytest.raises(StepError, match=r"version 2 in .* is damaged: saved_model.pb has other bytes"):
        rollback(place, 2)
    with pytest.raises(StepError, match="there is no version 3"):
        rollback(place, 3)
    assert latest_version(place) == 1


def test_a_damaged_version_is_published_anew(place, model):
    publisher.publish(place, model=model, blessed=True)
    storage.open_store(place).write_bytes("1/saved_model.pb", b"grapH")
    publication = publisher.publish(place, model=model, blessed=True)
    assert publication.copied
    assert publication.version.number == latest_version(place) == 2


def test_a_model_that_is_not_blessed_is_refused_before_anything_is_written(place, model):
    with pytest.raises(publisher.NotBlessedError):
        publisher.publish(place, model=model, blessed=False)
    assert files(place) == set()


def test_nothing_published_yet(place):
    with pytest.raises(StepError, match=r"there is nothing in .*/models"):
        list_versions(place)


def test_the_marker_of_a_model_is_the_last_of_its_files(faults, s3, model):
    publisher.publish(f"{s3}/models", model=model, blessed=True)
    written = [
        request.path.partition("?")[0].partition("/models/")[2]
        for request in faults.requests
        if request.method == "PUT"
    ]
    written = [name for name in written if not name.startswith(".lock/")]
    assert written == [".partial/1", "1/variables/variables.data-00000-of-00001", "1/saved_model.pb",
                       "1/MANIFEST.json", "LATEST"]  # fmt: skip


def test_the_pointer_names_the_destination_with_its_options(s3, s3_server, model, tmp_path, monkeypatch):
    monkeypatch.delenv("S3_ENDPOINT")
    destination = f"{s3}/models?endpoint=127.0.0.1:{s3_server.port}&disableSSL=true"
    pushed = types.SimpleNamespace(path=str(tmp_path / "pushed"), uri="", metadata={})
    artifact = types.SimpleNamespace(path=model, uri="s3://bucket/run/model", metadata={})
    result = push(
        model=artifact, bundle=None, pushed=pushed, destination=destination, blessed=True, reason="", force=False,
        keep=0, rollback_to=0, fail_if_refused=False, lock_timeout=60,
    )  # fmt: skip
    assert result == (1, True)
    assert pushed.metadata["destination"] == destination
    assert latest_version(destination) == 1


def test_simultaneous_pushes_take_turns(place, tmp_path):
    """Each gets a version of its own, whole, and LATEST is one of them."""
    context = multiprocessing.get_context("spawn")
    models = [make_model(tmp_path, str(number).encode()) for number in range(4)]
    processes = [context.Process(target=publish, args=(place, model)) for model in models]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 4
    versions = list_versions(place)
    assert [version.number for version in versions] == [1, 2, 3, 4]
    assert latest_version(place) == 4
    for version in versions:
        version.verify()
    assert not any(name.startswith((".lock/", ".partial/")) for name in files(place))


def publish(place: str, model: str) -> None:
    publisher.publish(place, model=model, blessed=True)


def publish_in_spite_of_pauses(place: str, model: str) -> publisher.Publication:
    """Where the time of a lock is short, a busy machine may take it from a process that holds it."""
    for _ in range(9):
        with contextlib.suppress(StepError):
            return publisher.publish(place, model=model, blessed=True, lock_timeout=60)
    return publisher.publish(place, model=model, blessed=True, lock_timeout=60)


@pytest.mark.parametrize("survived", range(0, 24, 3))
def test_a_killed_push_leaves_the_last_version_in_use(faults, s3, tmp_path, monkeypatch, survived):
    """The process dies after so many requests; readers see the version before, and the next push cleans up."""
    monkeypatch.setattr("kfp_hybrid.storage.lease.LEASE_SECONDS", 2.0)
    place = f"{s3}/models"
    publisher.publish(place, model=make_model(tmp_path, b"before"), blessed=True)
    model = make_model(tmp_path, b"after")
    code = (
        "from kfp_hybrid.components.deployment.push_model.publisher import publish\n"
        f"publish({place!r}, model={model!r}, blessed=True)"
    )
    seen = len(faults.requests)
    process, others = None, faults.connections

    def kill(request):
        if process and request.number > seen + survived and process.poll() is None:
            process.send_signal(signal.SIGKILL)

    faults.fault = kill
    process = subprocess.Popen([sys.executable, "-c", code])
    process.wait(120)
    faults.fault = lambda request: None
    faults.wait_until_gone(others)
    for version in list_versions(place):
        version.verify()
    assert latest_version(place) in [version.number for version in list_versions(place)]
    publication = publish_in_spite_of_pauses(place, model)
    assert latest_version(place) == publication.version.number
    publication.version.verify()
    assert len(list_versions(place)) == 2
    assert not any(name.startswith((".lock/", ".partial/")) for name in files(place))
    assert {name.partition("/")[0] for name in files(place)} == {"1", "2", "LATEST"}


def test_another_push_that_does_not_end_is_waited_for_only_so_long(s3, model):
    place = f"{s3}/models"
    storage.open_store(place).write_bytes(".lock/other", b"")
    with pytest.raises(StepError, match=r"another process has been changing .* for 1 seconds"):
        publisher.publish(place, model=model, blessed=True, lock_timeout=1)


def test_a_push_that_was_held_up_beyond_its_lock_does_not_touch_latest(s3, model, tmp_path, monkeypatch):
    place = f"{s3}/models"
    publisher.publish(place, model=model, blessed=True)
    store = storage.open_store(place)

    def others_took_over(copies):
        store.delete_tree(".lock/")
        return real(copies)

    from kfp_hybrid.components.deployment.push_model import bucket

    real = bucket.copy_all
    monkeypatch.setattr(bucket, "copy_all", others_took_over)
    with pytest.raises(StepError, match=r"the lock on .* was lost"):
        publisher.publish(place, model=make_model(tmp_path, b"two"), blessed=True)
    assert latest_version(place) == 1
    assert [version.number for version in list_versions(place)] == [1]
