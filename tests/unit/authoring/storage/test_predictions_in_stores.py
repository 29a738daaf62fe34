"""From the place of models to the place of predictions: which version is resolved, and what is published."""

import json
import types
from pathlib import Path

import pytest

from kfp_hybrid import storage
from kfp_hybrid.components.deployment.push_model import publisher
from kfp_hybrid.components.inference.publish_predictions.publish import publish
from kfp_hybrid.components.inference.resolve_model.resolve import resolve
from kfp_hybrid.scoring.model_files import model_files
from kfp_hybrid.step import StepError


def artifact(path, **metadata):
    return types.SimpleNamespace(path=str(path), uri=f"s3://runs/{Path(path).name}", metadata=metadata)


# ------------------------------------------------------------------------------------------------- the version in use


@pytest.fixture
def push(place, tmp_path):
    """Publishes a model of some content to the place, as its next version."""

    def push_model(weights):
        model = tmp_path / f"model-{weights}"
        (model / "variables").mkdir(parents=True, exist_ok=True)
        (model / "saved_model.pb").write_bytes(b"graph")
        (model / "variables/variables.data-00000-of-00001").write_text(weights)
        return publisher.publish(place, model=str(model), blessed=True).version

    return push_model


@pytest.fixture
def resolved(tmp_path):
    """Resolves a place: the version, and the artifact that stands for it."""

    def resolve_place(place):
        model = artifact(tmp_path / "run" / "model")
        return resolve(place, model), model

    return resolve_place


def weights_of(model):
    with model_files(Path(model.path)) as files:
        return (files.path / "variables/variables.data-00000-of-00001").read_text()


def test_the_newest_version_is_in_use_until_another_one_is(place, push, resolved):
    for weights in ("one", "two"):
        newest = push(weights)
        version, model = resolved(place)
        assert (version, weights_of(model)) == (str(newest.number), weights)
        assert model.metadata == {"destination": place, "version": version, "digest": newest.digest}
    publisher.rollback(place, 1)
    version, model = resolved(place)
    assert (version, weights_of(model)) == ("1", "one")


def test_one_version_of_a_place_is_taken_whatever_is_in_use(place, push, resolved):
    push("one")
    push("two")
    version, model = resolved(f"{place}/1")
    assert (version, weights_of(model)) == ("1", "one")
    assert model.metadata["destination"] == place


def test_steps_go_on_with_the_version_that_was_in_use_when_it_was_resolved(place, push, resolved):
    push("one")
    _, model = resolved(place)
    push("two")
    assert weights_of(model) == "one"


def test_a_directory_without_latest_is_used_in_its_greatest_number(place, resolved):
    for number in ("2", "10"):
        storage.open_store(place).write_bytes(f"{number}/saved_model.pb", number.encode())
    version, model = resolved(place)
    assert (version, model.metadata["digest"]) == ("10", "")


def test_a_model_that_has_no_versions_is_taken_as_it_is(place, resolved):
    storage.open_store(place).write_bytes("champion/edge/model.tflite", b"flatbuffer")
    version, model = resolved(f"{place}/champion/")
    with model_files(Path(model.path)) as files:
        assert (version, (files.bundle / "model.tflite").read_bytes()) == ("champion", b"flatbuffer")


def test_the_pointer_keeps_the_options_of_the_store(s3, s3_server, resolved, monkeypatch):
    storage.open_store(s3).write_bytes("models/3/saved_model.pb", b"graph")
    monkeypatch.delenv("S3_ENDPOINT")
    options = f"?endpoint=127.0.0.1:{s3_server.port}&disableSSL=true"
    for place in (f"{s3}/models{options}", f"{s3}/models/3{options}"):
        version, model = resolved(place)
        assert (version, model.metadata["destination"]) == ("3", f"{s3}/models{options}")
        with model_files(Path(model.path)) as files:
            assert (files.path / "saved_model.pb").read_bytes() == b"graph"


def test_a_path_is_found_from_any_folder(tmp_path, resolved, monkeypatch):
    (tmp_path / "models/1").mkdir(parents=True)
    (tmp_path / "models/1/saved_model.pb").write_bytes(b"graph")
    monkeypatch.chdir(tmp_path)
    for spelling in ("models", (tmp_path / "models").as_uri()):
        _, model = resolved(spelling)
        assert model.metadata["destination"] == str(tmp_path / "models")


@pytest.mark.parametrize(
    "there", [{}, {"LATEST": b"3\n"}, {"LATEST": b"3\n", "3/manifest.json": b"{}"}, {"notes": b""}]
)
def test_a_place_without_a_model_is_refused_by_its_name(place, there, resolved, tmp_path):
    for name, data in there.items():
        storage.open_store(place).write_bytes(name, data)
    with pytest.raises(StepError, match=f"there is no model at {place}") as caught:
        resolved(place)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("latest", ["../../elsewhere", "a\nb", "."])
def test_latest_names_no_other_folder(place, latest, resolved):
    storage.open_store(place).write_bytes("LATEST", latest.encode())
    with pytest.raises(StepError, match="which is no version"):
        resolved(place)


def test_a_whole_bucket_is_refused(resolved):
    with pytest.raises(StepError, match="s3://models is a whole bucket; give the folder in it"):
        resolved("s3://models")


# -------------------------------------------------------------------------------------------------- the predictions


@pytest.fixture
def predict(tmp_path):
    """Makes predictions: an artifact with the files that predict_batch writes, of other bytes for another day."""

    def predictions(day="monday", rows=1000, **facts):
        folder = tmp_path / f"predictions-{day}"
        (folder / "rows").mkdir(parents=True, exist_ok=True)
        (folder / "rows/part-00000.parquet").write_text(day * 1000)
        made_by = {"rows": rows, "model_version": "7", "missing": {}, "unknown": {}, **facts}
        (folder / "manifest.json").write_text(json.dumps({"predictions": made_by}))
        return artifact(folder, rows=rows, model_version="7")

    return predictions


def publish_to(place, predictions, **options):
    defaults = {"keep": 0, "max_unfamiliar_fraction": 1.0, "lock_timeout": 5}
    return publish(predictions, place, **{**defaults, **options})


def names(place):
    return {entry.key for entry in storage.open_store(place).entries() if not entry.key.startswith(".lock")}


def test_each_days_predictions_are_a_version_and_those_before_stay(place, predict):
    said = "1,000 rows by model version 7"
    assert publish_to(place, predict("monday")) == (1, f"{place}/1", f"published to {place}/1: {said}")
    assert publish_to(place, predict("tuesday")) == (2, f"{place}/2", f"published to {place}/2: {said}")
    files = {"manifest.json", "rows/part-00000.parquet", "MANIFEST.json"}
    assert names(place) == {"LATEST", *(f"{number}/{name}" for number in (1, 2) for name in files)}
    store = storage.open_store(place)
    assert store.read("LATEST") == b"2\n"
    assert store.read("1/rows/part-00000.parquet") == b"monday" * 1000
    for version in publisher.list_versions(place):
        version.verify()


def test_the_manifest_says_where_the_predictions_come_from(place, predict):
    publish_to(place, predict("monday"))
    manifest = json.loads(storage.open_store(place).read("1/MANIFEST.json"))
    assert manifest["format"] == "kfp-hybrid/published-predictions"
    assert manifest["blessing"]["reason"] == "1,000 rows by model version 7"
    origin = {"uri": "s3://runs/predictions-monday", "metadata": {"rows": 1000, "model_version": "7"}}
    assert manifest["source"] == {"predictions": origin}


def test_a_step_that_is_tried_again_publishes_nothing_twice(place, predict):
    for _ in range(2):
        assert publish_to(place, predict("monday"))[:2] == (1, f"{place}/1")
    assert [version.number for version in publisher.list_versions(place)] == [1]


def test_old_predictions_go_only_when_so_many_are_to_be_kept(place, predict):
    for day in ("monday", "tuesday", "wednesday"):
        publish_to(place, predict(day), keep=2)
    assert [version.number for version in publisher.list_versions(place)] == [2, 3]


def test_predictions_and_models_refuse_the_place_of_the_other(place, predict, push):
    push("one")
    before = names(place)
    with pytest.raises(StepError, match=f"{place} is where models are published; give predictions another destination"):
        publish_to(place, predict())
    assert names(place) == before
    assert publisher.latest_version(place) == 1
    publish_to(f"{place}-predictions", predict())
    with pytest.raises(StepError, match="is where predictions are published; give models another destination"):
        publisher.publish(f"{place}-predictions", bundle=str(edge_bundle(Path(predict().path))), blessed=True)


def edge_bundle(folder):
    (folder / "model.tflite").write_bytes(b"flatbuffer")
    return folder


def test_a_place_of_predictions_is_no_model(place, predict, resolved):
    publish_to(place, predict())
    with pytest.raises(StepError, match=f"there is no model at {place}/1"):
        resolved(place)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"unknown": {"carrier": 251, "dest": 3}}, r"in 25\.1% of the rows carrier has no value or one that the model"),
        ({"unknown": {"carrier": 200}, "missing": {"carrier": 51}}, r"in 25\.1% of the rows carrier"),
        ({"missing": {"temp": 1000}}, r"in 100\.0% of the rows temp .* more than max_unfamiliar_fraction \(0\.25\)"),
    ],
)
def test_predictions_of_values_that_the_model_does_not_know_are_not_published(place, predict, facts, message):
    publish_to(place, predict("monday"))
    with pytest.raises(StepError, match=message):
        publish_to(place, predict("tuesday", **facts), max_unfamiliar_fraction=0.25)
    assert [version.number for version in publisher.list_versions(place)] == [1]


def test_as_many_unfamiliar_values_as_allowed_are_published_and_noted(place, predict):
    publish_to(place, predict(unknown={"carrier": 250}, missing={"temp": 10}), max_unfamiliar_fraction=0.25)
    (version,) = publisher.list_versions(place)
    assert version.reason.endswith("; carrier has no value or one that the model has not learned in 25.0% of them")


def test_predictions_of_no_rows_are_published(place, predict):
    assert publish_to(place, predict(rows=0, missing={"temp": 0}), max_unfamiliar_fraction=0.0)[0] == 1


def test_what_is_not_all_of_the_predictions_is_refused(tmp_path, predict):
    place = str(tmp_path / "store")
    with pytest.raises(StepError, match="holds a part of predictions; give it to merge_predictions"):
        publish_to(place, predict(shards=[0], shard_count=2))
    examples = tmp_path / "examples"
    examples.mkdir()
    with pytest.raises(StepError, match=r"cannot read .*manifest\.json.*; give the predictions of predict_batch"):
        publish_to(place, artifact(examples))
    (examples / "manifest.json").write_text('{"splits": {}}')
    with pytest.raises(StepError, match="holds examples and no predictions"):
        publish_to(place, artifact(examples))
    with pytest.raises(StepError, match=r"max_unfamiliar_fraction is 25; it must be from 0 to 1"):
        publish_to(place, predict(), max_unfamiliar_fraction=25)
    assert not (tmp_path / "store").exists()
