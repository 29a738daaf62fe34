"""Where models come from: directories of versions, object stores, and what is refused there."""

import json
import shutil

import pytest
import requests

from kfp_hybrid.components.deployment.push_model import content
from kfp_hybrid.components.deployment.push_model.versions import write_manifest
from kfp_hybrid.errors import UserError
from kfp_hybrid.serving.loading import ModelSource
from kfp_hybrid.step import StepError

ROW = {"a": [1], "b": [10], "c": ["x"]}  # sum: 16


def publish(place, bundle, number):
    """A version as push_model leaves it."""
    folder = place / str(number)
    shutil.copytree(bundle, folder / "edge")
    files = content.checksums(folder)
    (folder / "MANIFEST.json").write_text(write_manifest(number, files, {"created": "", "blessing": {}, "source": {}}))
    (place / "LATEST").write_text(f"{number}\n")
    return folder


@pytest.fixture
def models(tmp_path, bundles):
    publish(tmp_path, bundles / "sum", 9)
    publish(tmp_path, bundles / "late", 10)
    return tmp_path


def test_a_bundle_is_a_model_by_itself(bundles):
    servable = ModelSource(str(bundles / "sum"), "m").load()
    assert (servable.engine, servable.name, len(servable.version)) == ("litert", "m", 12)
    assert servable.predict(ROW).tolist() == [[16.0]]


def test_latest_of_a_directory_of_versions(models):
    source = ModelSource(str(models), "m")
    assert source.latest() == "10"
    assert (source.load().version, source.load().answer.task) == ("10", "binary")


def test_a_version_of_a_directory_of_versions(models):
    assert ModelSource(str(models), "m").load("9").answer.task == "regression"
    assert ModelSource(str(models / "9"), "m").load().version == "9"


def test_the_greatest_number_where_nothing_says_latest(models):
    (models / "LATEST").unlink()
    assert ModelSource(str(models), "m").latest() == "10"


def test_a_version_that_is_not_there(models):
    with pytest.raises(UserError, match=r"there is no model at .*/77"):
        ModelSource(str(models), "m").load("77")


@pytest.mark.parametrize("version", ["../9", "/etc", ".", "9/edge", " "])
def test_a_version_is_no_path(models, version):
    with pytest.raises(UserError, match="the version is"):
        ModelSource(str(models), "m").load(version)


def test_a_version_with_other_files_than_were_published_is_refused(models):
    (models / "10" / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(UserError, match="are not those that were published"):
        ModelSource(str(models), "m").load()


def test_a_saved_model_is_not_served_where_there_is_no_tensorflow(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(UserError, match="needs TensorFlow, which this image does not have"):
        ModelSource(str(tmp_path), "m").load()


def test_of_a_folder_that_is_no_model_nothing_is_read(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "film.mkv").write_bytes(b"large")
    monkeypatch.setattr(content, "checksum", lambda path: pytest.fail(f"{path} was read"))
    with pytest.raises(UserError, match=r"neither a SavedModel nor an edge bundle: it has none of saved_model\.pb"):
        ModelSource(str(tmp_path), "m").load()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("manifest.json", {"format": "kfp-hybrid/examples"}, "is not an edge bundle but kfp-hybrid/examples; give the"),
        ("rejected.json", {"reason": "refused: it differs"}, "is not an edge bundle: the export was refused"),
    ],
)
def test_another_artifact_is_called_what_it_is(tmp_path, file, content, message):
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(StepError, match=message):
        ModelSource(str(tmp_path), "m").load()


def test_code_and_pickles_in_the_folder_are_never_touched(tmp_path, bundles):
    shutil.copytree(bundles / "sum", tmp_path / "model")
    for name in ("model.py", "__init__.py", "model.pkl", "sitecustomize.py", "conftest.py"):
        (tmp_path / "model" / name).write_text("raise SystemExit('code of the model was run')")
    assert ModelSource(str(tmp_path / "model"), "m").load().predict(ROW).tolist() == [[16.0]]


def test_a_uri_is_fetched_and_checked(models, tmp_path):
    source = ModelSource(f"file://{models}", "m")
    assert (source.latest(), source.load().version, source.load("9").version) == ("10", "10", "9")
    assert ModelSource(f"file://{models}/9", "m").load().version == "9"
    (models / "10" / "edge" / "labels.json").write_text("{}")
    with pytest.raises(UserError, match="are not those that were published"):
        source.load()


def test_a_server_of_a_uri(models, start):
    server = start(f"file://{models}", "--version", "9")
    assert server.predict([{"a": 1, "b": 10, "c": "x"}]) == [16.0]
    assert requests.get(f"{server.url}/v2/models/model", timeout=60).json()["versions"] == ["9"]
