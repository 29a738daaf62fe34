"""A batch prediction is shared by as many steps as its resources have nodes: read from the compiled package."""

import pytest
from kfp import dsl

from kfp_hybrid.lint.spec import Pipeline
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import KubeflowProfile, Resources, VertexProfile
from kfp_hybrid.targets.kubeflow import KubeflowTarget
from kfp_hybrid.targets.vertex import VertexTarget

KUBEFLOW = KubeflowProfile.model_validate({
    "kind": "kubeflow", "host": "https://pipelines.example.com",
    "secrets": {"storage": {"secret": "storage", "env": {"AWS_SECRET_ACCESS_KEY": "secretkey"}}},
})  # fmt: skip
VERTEX = VertexProfile.model_validate({
    "kind": "vertex", "project": "ml-production", "location": "europe-west4",
    "pipeline_root": "gs://ml-production-pipelines/root",
})  # fmt: skip
TARGETS = {"kubeflow": (KubeflowTarget, KUBEFLOW), "vertex": (VertexTarget, VERTEX)}


@pytest.fixture(params=list(TARGETS))
def compiled(request, tmp_path):
    """compiled(nodes): the tasks of a batch prediction by name."""

    def compile_prediction(nodes):
        class_, profile = TARGETS[request.param]
        target = class_("target", profile, lambda name: Resources(cpu=4, nodes=nodes))

        @dsl.pipeline(name="predict")
        def pipeline() -> dsl.Dataset:
            examples = dsl.importer(artifact_uri="gs://bucket/examples", artifact_class=dsl.Dataset).output
            model = dsl.importer(artifact_uri="gs://bucket/model", artifact_class=dsl.Model).output
            return target.predict_batch(model=model, examples=examples, key_columns=["id"], resources="prediction")

        target.compile(pipeline, tmp_path / "package.yaml")
        package = Package.load(tmp_path / "package.yaml")
        assert not target.lint(package)
        return {task.name: task for task in Pipeline(package).tasks if task.container}

    return compile_prediction


def constant(task, name):
    return task.spec.inputs.parameters[name].runtime_value.constant.number_value


def producers(task):
    artifacts = task.spec.inputs.artifacts.values()
    return sorted(artifact.task_output_artifact.producer_task for artifact in artifacts)


def test_one_node_predicts_in_one_step(compiled):
    assert list(compiled(1)) == ["predict-batch"]


def test_each_node_predicts_its_shards_and_one_step_puts_them_together(compiled):
    tasks = compiled(3)
    names = ["predict-batch", "predict-batch-2", "predict-batch-3"]
    assert sorted(tasks) == ["merge-predictions", *names]
    assert [constant(tasks[name], "shard_index") for name in names] == [0, 1, 2]
    assert {constant(task, "shard_count") for name, task in tasks.items() if name in names} == {3}
    assert producers(tasks["merge-predictions"]) == names


def test_predicting_steps_get_the_resources_and_merging_ones_do_not(compiled):
    tasks = compiled(2)
    assert tasks["predict-batch-2"].container.resources.resource_cpu_limit == "4"
    assert not tasks["merge-predictions"].container.resources.resource_cpu_limit


def test_more_parts_than_a_step_takes_are_merged_in_two_rounds(compiled):
    tasks = compiled(20)
    assert len(producers(tasks["merge-predictions"])) == 16
    assert producers(tasks["merge-predictions-2"]) == sorted(f"predict-batch-{i}" for i in range(17, 21))
    assert producers(tasks["merge-predictions-3"]) == ["merge-predictions", "merge-predictions-2"]
