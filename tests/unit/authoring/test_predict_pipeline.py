"""The pipeline `predict` as it is compiled: what each step gets, and that no run answers with an earlier one's."""

import pytest
import yaml

from kfp_hybrid.lint.spec import Pipeline
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import KubeflowProfile, Resources, VertexProfile
from kfp_hybrid.sources import compile_pipeline
from kfp_hybrid.targets.kubeflow import KubeflowTarget
from kfp_hybrid.targets.vertex import VertexTarget

SECRET = "projects/1/secrets/storage/versions/3"
KUBEFLOW = KubeflowProfile.model_validate({
    "kind": "kubeflow", "host": "https://pipelines.example.com",
    "secrets": {"storage": {"secret": "s3-credentials", "env": {"AWS_SECRET_ACCESS_KEY": "secretkey"}}},
})  # fmt: skip
VERTEX = VertexProfile.model_validate({
    "kind": "vertex", "project": "ml-production", "location": "europe-west4",
    "pipeline_root": "gs://ml-production-pipelines/root",
    "secrets": {"storage": {"env": {"AWS_SECRET_ACCESS_KEY": SECRET}}},
})  # fmt: skip
TARGETS = {"kubeflow": (KubeflowTarget, KUBEFLOW), "vertex": (VertexTarget, VERTEX)}
OUTSIDE = {"resolve-model", "ingest-examples", "publish-predictions"}


@pytest.fixture(params=list(TARGETS))
def kind(request):
    return request.param


@pytest.fixture
def compiled(kind, tmp_path):
    """compiled(nodes): the package."""

    def compile_predict(nodes=1):
        class_, profile = TARGETS[kind]
        target = class_("target", profile, lambda name: Resources(nodes=nodes) if name == "prediction" else Resources())
        compile_pipeline("predict", target, tmp_path / "package.yaml")
        package = Package.load(tmp_path / "package.yaml")
        assert not target.lint(package)
        return package

    return compile_predict


def tasks(package):
    return {task.name: task for task in Pipeline(package).tasks}


def test_what_looks_outside_of_the_run_is_never_taken_from_an_earlier_one(compiled):
    by_name = tasks(compiled())
    assert {name for name, task in by_name.items() if not task.spec.caching_options.enable_cache} == OUTSIDE


def test_what_may_be_cached_takes_artifacts_of_this_run_alone(compiled):
    """Both platforms know an artifact by its identity, so that those of a step which has just run are new."""
    cached = {name: task for name, task in tasks(compiled(nodes=3)).items() if name not in OUTSIDE}
    assert sorted(cached) == ["merge-predictions", "predict-batch", "predict-batch-2", "predict-batch-3"]
    for task in cached.values():
        producers = {artifact.task_output_artifact.producer_task for artifact in task.spec.inputs.artifacts.values()}
        assert producers and producers <= OUTSIDE | cached.keys()


def test_all_nodes_score_the_same_rows_with_the_same_version(compiled):
    by_name = tasks(compiled(nodes=2))
    for name in ("predict-batch", "predict-batch-2"):
        artifacts = by_name[name].spec.inputs.artifacts
        assert {key: artifact.task_output_artifact.producer_task for key, artifact in artifacts.items()} == {
            "model": "resolve-model", "examples": "ingest-examples",
        }  # fmt: skip


def test_whatever_reaches_a_store_gets_its_credentials(compiled):
    *_, document = yaml.safe_load_all(compiled(nodes=2).text)  # on Kubeflow the second, for Kubernetes
    spec = document["platforms"]["kubernetes"] if "platforms" in document else document
    with_secret = {
        label.removeprefix("exec-")
        for label, executor in spec["deploymentSpec"]["executors"].items()
        if SECRET in str(executor) or "s3-credentials" in str(executor)
    }
    assert with_secret >= OUTSIDE | {"predict-batch", "predict-batch-2"}
