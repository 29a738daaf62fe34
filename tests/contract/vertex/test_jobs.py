"""Pipelines that start jobs of Vertex AI: custom training jobs, AutoML and batch predictions, by Google's programs."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from google.cloud import aiplatform
from kfp import dsl
from played_run import PlayedRun

sys.path.insert(0, str(Path(__file__).parents[2] / "servers"))
from vertex_jobs import FakeJobs

from kfp_hybrid.errors import UserError
from kfp_hybrid.lint import lint
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import Resources

HOST = "europe-west4-aiplatform.googleapis.com"
KEY = "projects/ml-production/locations/europe-west4/keyRings/ml/cryptoKeys/k"
ACCOUNT = "pipelines@ml-production.iam.gserviceaccount.com"
IMAGE = "europe-west4-docker.pkg.dev/ml-production/ml/tensorflow:2.0"
T4 = Resources(cpu=8, memory="30Gi", accelerator="T4", count=2)


@pytest.fixture
def jobs(google):
    google.hosts[HOST] = FakeJobs()
    return google.hosts[HOST].made


@pytest.fixture
def play(jobs, server, open_target, tmp_path, no_pauses, monkeypatch):
    """Runs a pipeline that is made for a target with a profile and resources."""
    aiplatform.init(api_transport="rest", api_endpoint=HOST)
    monkeypatch.setattr(  # gRPC does not trust the authority of the test
        aiplatform.gapic, "JobServiceClient", functools.partial(aiplatform.gapic.JobServiceClient, transport="rest")
    )

    def run(make, components=(), resources=None, profile=None, **arguments):
        target = open_target(**{"images": {"tensorflow": "2.0"}, **(profile or {})})
        target.resources_for = lambda name: (resources or {}).get(name, Resources())
        target.compile(make(target), tmp_path / "package.yaml")
        package = Package.load(tmp_path / "package.yaml")
        assert not lint(package, ["vertex"])
        return PlayedRun(package, components, tmp_path).run(**arguments)

    yield run
    aiplatform.init()


# --------------------------------------------------------------------------------------------------- custom jobs


@dsl.component(base_image="ghcr.io/kfp-hybrid/tensorflow:0.1.0", install_kfp_package=False)
def train(
    examples: dsl.Input[dsl.Dataset], label: str, model: dsl.Output[dsl.Model], strategy: str = "none", epochs: int = 10
) -> None:
    """A training component: with the inputs that matter here."""
    import os

    model.metadata.update(label=label, strategy=strategy, epochs=epochs)
    os.makedirs(os.path.dirname(model.path), exist_ok=True)
    with open(model.path, "w") as file:
        file.write(f'{examples.uri} "{label}" {strategy} {epochs}')


def training(component=train, **inputs):
    def make(target):
        @dsl.pipeline(name="training")
        def pipeline(label: str = "late"):
            examples = dsl.importer(artifact_uri="gs://bucket/examples", artifact_class=dsl.Dataset).output
            target.train(component, examples=examples, label=label, **inputs)

        return pipeline

    return make


def the_pools(jobs):
    (job,) = jobs["customJobs"]
    return list(job.job_spec.worker_pool_specs)


def test_spot_machines_make_it_a_custom_job_with_what_the_profile_says(play, jobs):
    profile = {
        "service_account": ACCOUNT, "encryption_key": KEY, "labels": {"team": "ml"},
        "network": "projects/1/global/networks/ml", "reserved_ip_ranges": ["a-range"],
    }  # fmt: skip
    play(training(), resources={"training": T4.model_copy(update={"spot": True})}, profile=profile)
    (job,) = jobs["customJobs"]
    spec = job.job_spec
    assert job.display_name == "train"
    assert spec.scheduling.strategy.name == "SPOT"
    assert (spec.service_account, spec.network) == (ACCOUNT, "projects/1/global/networks/ml")
    assert list(spec.reserved_ip_ranges) == ["a-range"]
    assert job.encryption_spec.kms_key_name == KEY
    assert job.labels["team"] == "ml"
    (pool,) = the_pools(jobs)
    assert pool.replica_count == 1
    machine = pool.machine_spec
    assert (machine.machine_type, machine.accelerator_type.name, machine.accelerator_count) == (
        "n1-standard-8", "NVIDIA_TESLA_T4", 2,
    )  # fmt: skip
    assert pool.container_spec.image_uri == IMAGE


def test_several_nodes_are_a_chief_and_workers_that_train_together(play, jobs):
    play(training(), resources={"training": Resources(cpu=16, memory="64Gi", nodes=3)})
    chief, workers = the_pools(jobs)
    assert (chief.replica_count, workers.replica_count) == (1, 2)
    assert chief.machine_spec == workers.machine_spec
    assert (chief.machine_spec.machine_type, chief.machine_spec.accelerator_count) == ("e2-standard-16", 0)
    (job,) = jobs["customJobs"]
    assert job.job_spec.scheduling.strategy.name == "STANDARD"
    assert job.job_spec.scheduling.restart_job_on_worker_restart
    assert executor_input(chief)["inputs"]["parameterValues"]["strategy"] == "multi_worker"


@pytest.mark.parametrize(("name", "machine"), [("TPU-v5e", "ct5lp-hightpu-4t"), ("TPU-v6e", "ct6e-standard-4t")])
def test_a_tpu_is_a_machine_with_a_topology(play, jobs, name, machine):
    play(training(), resources={"training": Resources(accelerator=name, count=4)})
    (pool,) = the_pools(jobs)
    assert (pool.machine_spec.machine_type, pool.machine_spec.tpu_topology) == (machine, "2x2")
    assert not pool.machine_spec.accelerator_type
    assert executor_input(pool)["inputs"]["parameterValues"]["strategy"] == "tpu"


def test_a_private_service_connect_interface_is_used(play, jobs):
    attachment = "projects/ml-production/regions/europe-west4/networkAttachments/vertex"
    play(training(), resources={"training": Resources(spot=True)}, profile={"network_attachment": attachment})
    (job,) = jobs["customJobs"]
    assert job.job_spec.psc_interface_config.network_attachment == attachment


def test_the_job_runs_the_same_function_with_the_same_inputs(play, jobs, tmp_path):
    play(training(epochs=3), resources={"training": Resources(spot=True)}, label='l"a\\te\n')
    (pool,) = the_pools(jobs)
    given = executor_input(pool)
    assert given["inputs"]["parameterValues"]["label"] == 'l"a\\te\n'
    written = tmp_path / "written"
    text = json.dumps(given).replace("gs://bucket/train/model", str(written / "model"))
    words = [text if word == json.dumps(given) else word for word in command(pool)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CLUSTER_SPEC": ""}
    subprocess.run(words, env=environment, check=True, timeout=60)
    assert (written / "model").read_text() == 'gs://bucket/examples "l"a\\te\n" none 3'


@pytest.mark.parametrize(
    ("resources", "inputs", "strategy"),
    [
        (Resources(cpu=4), {}, "none"),
        (Resources(accelerator="T4"), {}, "none"),
        (Resources(accelerator="T4", count=2), {}, "mirrored"),
        (Resources(accelerator="T4", count=2), {"strategy": "none"}, "none"),
    ],
)
def test_what_a_step_can_have_stays_a_step(open_target, tmp_path, resources, inputs, strategy):
    target = open_target()
    target.resources_for = lambda name: resources
    target.compile(training(**inputs)(target), tmp_path / "package.yaml")
    package = Package.load(tmp_path / "package.yaml")
    (step,) = package.steps()
    assert step.is_python_component
    given = package.spec.root.dag.tasks["train"].inputs.parameters
    assert (given["strategy"].runtime_value.constant.string_value if "strategy" in given else "none") == strategy


@dsl.component(base_image="ghcr.io/kfp-hybrid/tensorflow:0.1.0", install_kfp_package=False)
def train_alone(examples: dsl.Input[dsl.Dataset], label: str) -> None:
    pass


@dsl.component(base_image="ghcr.io/kfp-hybrid/tensorflow:0.1.0", install_kfp_package=False)
def train_with_timeout(examples: dsl.Input[dsl.Dataset], label: str, timeout: int = 3) -> None:
    pass


@pytest.mark.parametrize(
    ("component", "resources", "inputs", "message"),
    [
        (train_alone, Resources(nodes=2), {}, "train-alone has no input strategy; leave strategy out"),
        (train, Resources(nodes=2), {"strategy": "mirrored"}, "needs? training with strategy multi_worker"),
        (train_with_timeout, Resources(spot=True), {}, "rename its input timeout"),
        (train, Resources(accelerator="TPU-v5e", count=4, nodes=2), {}, "several nodes with TPU-v5e each"),
        (train, Resources(accelerator="TPU-v5p", count=4), {}, "Vertex AI has no machine with TPU-v5p"),
        (train, Resources(cpu=400, spot=True), {}, "no machine that has 400 CPUs"),
    ],
)
def test_what_cannot_train_is_refused(open_target, component, resources, inputs, message):
    target = open_target()
    target.resources_for = lambda name: resources
    with pytest.raises(UserError, match=message):
        training(component, **inputs)(target)


def command(pool):
    return [*pool.container_spec.command, *pool.container_spec.args]


def executor_input(pool):
    words = command(pool)
    return json.loads(words[words.index("--executor_input") + 1])


# ------------------------------------------------------------------------------------- AutoML and batch predictions


@dsl.component(base_image="ghcr.io/elsewhere/tools:1", install_kfp_package=False)
def plan_automl(
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Input[dsl.Artifact],
    label: str,
    task: str = "auto",
    budget_hours: float = 1.0,
) -> NamedTuple(
    "Outputs",
    [
        ("prediction_type", str),
        ("columns", list),
        ("column_specs", dict),
        ("split_values", dict),
        ("budget_milli_node_hours", int),
    ],
):
    """What the component of that name decides about some data."""
    columns = {"carrier": "auto", "month": "categorical"}
    return "classification", [label, *columns], columns, {"train": ["TRAIN"]}, int(budget_hours * 1000)


@dsl.component(base_image="ghcr.io/elsewhere/tools:1", install_kfp_package=False)
def export_csv(
    examples: dsl.Input[dsl.Dataset],
    table: dsl.Output[dsl.Dataset],
    columns: list = [],
    split_column: str = "",
    split_values: dict = {},
) -> NamedTuple("Outputs", [("uris", list), ("source", str), ("rows", int)]):
    """What the component of that name writes of some data."""
    uris = [f"{table.uri}/part-00000.csv", f"{table.uri}/part-00001.csv"]
    return uris, str(uris).replace("'", '"'), 10


def without_code(target):
    @dsl.pipeline(name="without-code")
    def pipeline(label: str, task: str = "auto", budget_hours: float = 1.5):
        examples = dsl.importer(artifact_uri="gs://bucket/examples", artifact_class=dsl.Dataset).output
        facts = dsl.importer(artifact_uri="gs://bucket/facts", artifact_class=dsl.Artifact).output
        model = target.train_tabular(
            examples=examples, statistics=facts, schema=facts, label=label, task=task, budget_hours=budget_hours
        )
        target.predict_batch(model=model, examples=examples, resources="prediction")

    return pipeline


def test_automl_trains_on_the_features_and_the_splits_and_then_predicts(play, jobs):
    profile = {"encryption_key": KEY, "labels": {"team": "ml"}}
    resources = {"prediction": Resources(cpu=8, nodes=4)}
    play(without_code, [plan_automl, export_csv], resources, profile, label="late")

    (dataset,) = jobs["datasets"]
    assert dataset.metadata["inputConfig"]["gcsSource"]["uri"] == [
        f"gs://bucket/export-csv/table/part-0000{number}.csv" for number in range(2)
    ]
    (pipeline,) = jobs["trainingPipelines"]
    asked = pipeline.training_task_inputs
    assert (asked["targetColumn"], asked["predictionType"]) == ("late", "classification")
    assert asked["trainBudgetMilliNodeHours"] == 1500
    assert [dict(each) for each in asked["transformations"]] == [
        {"auto": {"column_name": "carrier"}},
        {"categorical": {"column_name": "month"}},
    ]
    assert pipeline.input_data_config.predefined_split.key == "ml_use"
    assert pipeline.input_data_config.dataset_id == "0"
    assert {each.encryption_spec.kms_key_name for each in (dataset, pipeline)} == {KEY}
    assert {each.labels["team"] for each in (dataset, pipeline, pipeline.model_to_upload)} == {"ml"}

    (job,) = jobs["batchPredictionJobs"]
    assert job.model == pipeline.model_to_upload.name
    assert job.input_config.instances_format == "csv"
    assert list(job.input_config.gcs_source.uris) == [
        f"gs://bucket/export-csv-2/table/part-0000{number}.csv" for number in range(2)
    ]
    assert job.output_config.gcs_destination.output_uri_prefix == "gs://ml-production-pipelines/root/predictions"
    machines = job.dedicated_resources
    assert (machines.machine_spec.machine_type, machines.max_replica_count) == ("e2-standard-8", 4)
    assert job.encryption_spec.kms_key_name == KEY


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "clustering"}, "task is clustering; give one of: auto, binary, multiclass, regression"),
        ({"budget_hours": 0.5}, "budget_hours is 0.5; AutoML takes 1 to 72 node hours"),
    ],
)
def test_what_automl_does_not_take_is_refused(open_target, settings, message):
    target = open_target()

    @dsl.pipeline(name="without-code")
    def pipeline():
        facts = dsl.importer(artifact_uri="gs://bucket/facts", artifact_class=dsl.Dataset).output
        values = {"label": "late", "task": "binary", **settings}
        with pytest.raises(UserError, match=message):
            target.train_tabular(examples=facts, statistics=facts, schema=facts, **values)
        target.configure(export_csv(examples=facts))


def test_a_model_of_this_collection_is_run_by_its_own_step(open_target, tmp_path):
    target = open_target()

    @dsl.pipeline(name="predict")
    def pipeline():
        examples = dsl.importer(artifact_uri="gs://bucket/examples", artifact_class=dsl.Dataset).output
        model = dsl.importer(artifact_uri="gs://bucket/model", artifact_class=dsl.Model).output
        target.predict_batch(model=model, examples=examples)

    target.compile(pipeline, tmp_path / "package.yaml")
    assert [step.task for step in Package.load(tmp_path / "package.yaml").steps()] == ["predict-batch"]
