"""KH3: where artifacts come from and where they are written."""

import functools

import pytest
from kfp import dsl

from kfp_hybrid import images

step = functools.partial(dsl.component, base_image=images.DEPLOYMENT, install_kfp_package=False)
EVERYWHERE = ("local", "kubeflow", "vertex")


@step()
def read(data: dsl.Input[dsl.Dataset]):
    import os

    with open(os.environ["NOTES"], "a") as notes, open(data.path) as file:
        notes.write(f"{file.read()}\n")


@step()
def locate() -> str:
    return "gs://bucket/data"


def imported(uri):
    return read(data=dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output)


# KH301 importer-uri


def test_a_uri_from_a_step_is_an_error_on_kubeflow(broken):
    @dsl.pipeline(name="p")
    def pipeline():
        imported(locate().output)

    assert broken(pipeline) == {("KH301", "importer", "kubeflow", "error")}


def test_a_uri_from_a_field_of_an_item_is_an_error_on_kubeflow(broken):
    @dsl.pipeline(name="p")
    def pipeline():
        with dsl.ParallelFor([{"uri": "gs://bucket/data"}]) as item:
            imported(item.uri)

    assert broken(pipeline) == {("KH301", "for-loop-2/importer", "kubeflow", "error")}


def test_a_parameter_within_a_uri_is_an_error_everywhere(broken, run, tmp_path):
    (tmp_path / "data").write_text("here")

    @dsl.pipeline(name="p")
    def pipeline(folder: str = str(tmp_path)):
        imported(f"{folder}/data")

    assert broken(pipeline) == {("KH301", "importer", target, "error") for target in EVERYWHERE}
    assert run(pipeline).notes == []


def test_a_placeholder_within_a_uri_is_an_error_except_on_vertex(broken):
    @dsl.pipeline(name="p")
    def pipeline():
        imported(f"{dsl.PIPELINE_ROOT_PLACEHOLDER}/data")

    found = {finding for finding in broken(pipeline) if finding[0] == "KH301"}
    assert found == {("KH301", "importer", "local", "error"), ("KH301", "importer", "kubeflow", "error")}


def test_a_uri_from_a_parameter_is_fine(broken, run, tmp_path):
    (tmp_path / "data").write_text("here")

    @dsl.pipeline(name="p")
    def pipeline(uri: str):
        imported(uri)

    assert broken(pipeline) == set()  # neither KH301 nor KH302
    assert run(pipeline, uri=str(tmp_path / "data")).notes == ["here"]


def test_a_uri_that_a_branch_is_given_is_fine(broken):
    @dsl.pipeline(name="p")
    def pipeline():
        uri = locate().output
        with dsl.If(uri != ""):
            imported(uri)

    assert broken(pipeline) == set()  # so KH301 is not among them


# KH302 importer-scheme


@pytest.mark.parametrize(
    ("uri", "targets"),
    [
        ("gs://bucket/data", {"local"}),
        ("s3://bucket/data", {"local", "vertex"}),
        ("minio://bucket/data", {"local", "vertex"}),
        ("oci://registry/model", {"local", "vertex"}),
        ("https://example.org/data", {"local", "kubeflow"}),
        ("bq://project.data.set", {"local", "kubeflow"}),
        ("file:///data", {"local", "kubeflow", "vertex"}),
        ("data.csv", {"local", "kubeflow", "vertex"}),
        ("/data", {"kubeflow", "vertex"}),
    ],
)
def test_a_uri_is_an_error_where_it_cannot_be_read(broken, uri, targets):
    @dsl.pipeline(name="p")
    def constant():
        imported(uri)

    @dsl.pipeline(name="p")
    def default(where: str = uri):
        with dsl.ParallelFor([1]):
            imported(where)

    assert broken(constant) == {("KH302", "importer", target, "error") for target in targets}
    assert broken(default) == {("KH302", "for-loop-2/importer", target, "error") for target in targets}


@pytest.mark.parametrize("uri", ["gs://bucket/data", "https://example.org/data", "file:///etc/hostname"])
def test_a_local_run_does_not_find_what_it_is_said_not_to_find(run, uri):
    @dsl.pipeline(name="p")
    def pipeline():
        imported(uri)

    outcome = run(pipeline)
    assert outcome.error
    assert outcome.notes == []


def test_a_uri_is_fine_where_it_can_be_read(broken, run, tmp_path):
    (tmp_path / "data").write_text("here")

    @dsl.pipeline(name="p")
    def path():
        imported(str(tmp_path / "data"))

    @dsl.pipeline(name="p")
    def bucket():
        imported("gs://bucket/data")

    assert broken(path, ["local"]) == set()  # so KH302 is not among them
    assert broken(bucket, ["kubeflow", "vertex"]) == set()
    assert run(path).notes == ["here"]


# KH303 output-uri


def test_setting_the_uri_of_an_output_is_an_error_on_kubeflow(broken):
    @step()
    def publish(model: dsl.Output[dsl.Model]):
        model.uri = "gs://elsewhere/model"

    @dsl.pipeline(name="p")
    def pipeline():
        publish()

    assert broken(pipeline) == {("KH303", "publish", "kubeflow", "error")}


def test_reading_a_uri_and_setting_that_of_something_else_is_fine(broken):
    @step()
    def publish(data: dsl.Input[dsl.Dataset], model: dsl.Output[dsl.Model]):
        class Other:
            uri = ""

        other = Other()
        other.uri = model.uri
        data.uri = data.uri.strip()
        model.metadata["source"] = other.uri
        with open(model.path, "w") as file:
            file.write(model.uri)

    @dsl.pipeline(name="p")
    def pipeline(uri: str):
        publish(data=dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output)

    assert broken(pipeline) == set()  # neither KH303 nor KH304


# KH304 save-to-uri


def test_saving_to_the_uri_of_an_output_is_an_error_on_clusters(broken):
    @step()
    def train(model: dsl.Output[dsl.Model]):
        import tensorflow as tf

        tf.saved_model.save(tf.Module(), export_dir=model.uri + "/1")

    @dsl.pipeline(name="p")
    def pipeline():
        train()

    assert broken(pipeline) == {("KH304", "train", target, "error") for target in ("kubeflow", "vertex")}


def test_saving_to_the_path_of_an_output_is_fine(broken):
    @step()
    def train(model: dsl.Output[dsl.Model]):
        import tensorflow as tf

        tf.saved_model.save(tf.Module(), export_dir=model.path)
        print(model.uri)

    @dsl.pipeline(name="p")
    def pipeline():
        train()

    assert broken(pipeline) == set()  # so KH304 is not among them


def test_a_call_that_only_sounds_like_saving_is_fine(broken):
    @step()
    def describe(model: dsl.Output[dsl.Model]):
        def export_facts(uri):
            print(uri)

        export_facts(model.uri)

    @dsl.pipeline(name="p")
    def pipeline():
        describe()

    assert broken(pipeline) == set()  # so KH304 is not among them
