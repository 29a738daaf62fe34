"""What steps get on Vertex AI: read from the compiled package."""

import pytest
from kfp import dsl

from kfp_hybrid.errors import UserError
from kfp_hybrid.lint import lint
from kfp_hybrid.lint.spec import Pipeline
from kfp_hybrid.package import Package
from kfp_hybrid.profiles import Resources, VertexProfile
from kfp_hybrid.sources import compile_pipeline
from kfp_hybrid.targets.vertex import VertexTarget

SECRET = "projects/ml-production/secrets/s3-secret-key/versions/latest"
IMAGE = "ghcr.io/kfp-hybrid/deployment:0.1.0"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def work(text: str) -> str:
    return text


@pytest.fixture
def target():
    profile = VertexProfile.model_validate({
        "kind": "vertex", "project": "ml-production", "location": "europe-west4",
        "pipeline_root": "gs://ml-production-pipelines/root",
        "secrets": {"storage": {"env": {"AWS_SECRET_ACCESS_KEY": SECRET}}},
    })  # fmt: skip
    return VertexTarget("cloud", profile, lambda name: Resources())


@pytest.fixture
def configured(target, tmp_path):
    """The compiled task of a step that was configured."""

    def compile_step(wanted=None, **settings):
        target.resources_for = lambda name: wanted

        @dsl.pipeline(name="pipeline")
        def pipeline():
            target.configure(work(text="a"), **({"resources": "any"} if wanted else {}), **settings)

        target.compile(pipeline, tmp_path / "package.yaml")
        package = Package.load(tmp_path / "package.yaml")
        assert not lint(package, ["vertex"])
        (task,) = Pipeline(package).tasks
        return task

    return compile_step


def environment(task):
    return {variable.name: variable.value for variable in task.container.env}


def test_limits_choose_the_machine_and_nothing_is_requested(configured):
    resources = configured(Resources(cpu=8, memory="32Gi")).container.resources
    assert (resources.resource_cpu_limit, resources.resource_memory_limit) == ("8", "32Gi")
    assert (resources.cpu_limit, resources.memory_limit) == (8.0, 34.359738368)
    assert not resources.resource_cpu_request and not resources.cpu_request
    assert not resources.resource_memory_request and not resources.memory_request


def test_without_resources_nothing_is_limited(configured):
    assert not configured().container.HasField("resources")
    assert not configured(Resources()).container.HasField("resources")


@pytest.mark.parametrize(
    ("name", "count", "vertex_type"),
    [("L4", 1, "NVIDIA_L4"), ("T4", 4, "NVIDIA_TESLA_T4"), ("H200", 8, "NVIDIA_H200_141GB")],
)
def test_an_accelerator_has_the_name_that_vertex_ai_knows(configured, name, count, vertex_type):
    accelerator = configured(Resources(accelerator=name, count=count)).container.resources.accelerator
    assert (accelerator.resource_type, accelerator.resource_count) == (vertex_type, str(count))
    assert (accelerator.type, accelerator.count) == (vertex_type, count)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Resources(accelerator="TPU-v5e", count=4), "resources any: no single step of Vertex AI can have TPU-v5e"),
        (Resources(accelerator="TPU-v6e", count=4), "start training steps with target.train"),
        (Resources(accelerator="L4", count=3), "Vertex AI has no machine with 3 L4, only with 1, 2, 4 or 8"),
        (Resources(accelerator="T4", cpu=90), "Vertex AI has no machine with 1 T4 that has 90 CPUs"),
        (Resources(cpu=200), "Vertex AI has no machine that has 200 CPUs"),
    ],
)
def test_what_no_step_can_have_is_refused(configured, wanted, message):
    with pytest.raises(UserError, match=message):
        configured(wanted)


def test_spot_machines_for_a_step_are_a_warning_only(configured, caplog):
    assert configured(Resources(cpu=2, spot=True)).container.resources.resource_cpu_limit == "2"
    assert "resources any: Vertex AI runs single steps on regular machines" in caplog.text


def test_a_secret_is_a_reference_to_secret_manager(configured):
    assert environment(configured(secrets=["storage"])) == {"AWS_SECRET_ACCESS_KEY": f"secretmanager://{SECRET}"}


def test_a_secret_that_the_profile_lacks_is_left_out(configured):
    assert environment(configured(secrets=["registry"])) == {}


def test_retries_wait_longer_each_time(configured):
    policy = configured(retries=3).spec.retry_policy
    assert (policy.max_retry_count, policy.backoff_duration.seconds, policy.backoff_factor) == (3, 30, 2.0)
    assert not configured().spec.HasField("retry_policy")


def test_a_timeout_is_what_the_step_itself_heeds(configured):
    assert environment(configured(timeout_seconds=90)) == {"KFP_HYBRID_TIMEOUT_SECONDS": "90"}


@pytest.mark.parametrize("cache", [True, False])
def test_caching_can_be_turned_off(configured, cache):
    assert configured(cache=cache).spec.caching_options.enable_cache == cache


@pytest.mark.parametrize("settings", [{"secrets": ["storage"]}, {"timeout_seconds": 90}])
def test_a_step_that_starts_a_job_refuses_what_the_job_would_not_get(target, settings):
    target.resources_for = lambda name: Resources(spot=True)

    @dsl.pipeline(name="pipeline")
    def pipeline():
        trained = target.train(work, text="a")
        target.configure(trained, retries=2, cache=False)
        with pytest.raises(UserError, match="the step work starts a job of its own on Vertex AI, which gets neither"):
            target.configure(trained, **settings)


@pytest.mark.parametrize("wanted", [Resources(accelerator="L4"), Resources(accelerator="L4", spot=True)])
def test_training_with_a_gpu_has_the_image_with_cuda(target, tmp_path, wanted):
    target.resources_for = lambda name: wanted if name == "training" else Resources()
    compile_pipeline("train_and_publish", target, tmp_path / "package.yaml")
    text = (tmp_path / "package.yaml").read_text()
    assert text.count("tensorflow:0.1.0-gpu") == 1  # the step, or the custom job that it is
    assert text.count("tensorflow:0.1.0") > 1  # all others
