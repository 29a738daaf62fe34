"""KH5: settings that only one platform understands."""

import functools

import pytest
from kfp import dsl, kubernetes

from kfp_hybrid import images
from kfp_hybrid.lint.rules.platforms import VERTEX_ACCELERATOR

step = functools.partial(dsl.component, base_image=images.DEPLOYMENT, install_kfp_package=False)
TWO_DOCUMENTS = ("KH001", "", "vertex", "error")


@step()
def work():
    pass


@step()
def note_secret():
    import os

    with open(os.environ["NOTES"], "a") as notes:
        notes.write(os.environ.get("TOKEN", "no token") + "\n")


def configured(configure, component=work):
    """A pipeline of one step, to which `configure` is applied."""

    @dsl.pipeline(name="p")
    def pipeline():
        configure(component())

    return pipeline


# KH501 kubernetes-data


@pytest.mark.parametrize(
    "configure",
    [
        lambda task: kubernetes.use_secret_as_env(task, "secret", {"key": "TOKEN"}),
        lambda task: kubernetes.use_secret_as_volume(task, "secret", "/secret"),
        lambda task: kubernetes.use_config_map_as_env(task, "map", {"key": "VALUE"}),
        lambda task: kubernetes.use_config_map_as_volume(task, "map", "/map"),
        lambda task: kubernetes.use_field_path_as_env(task, "NODE", "spec.nodeName"),
        lambda task: kubernetes.mount_pvc(task, pvc_name="claim", mount_path="/data"),
        lambda task: kubernetes.empty_dir_mount(task, volume_name="scratch", mount_path="/scratch"),
        lambda task: kubernetes.add_ephemeral_volume(
            task, volume_name="scratch", mount_path="/scratch", access_modes=["ReadWriteOnce"], size="1Gi"
        ),
    ],
)
def test_data_from_kubernetes_is_an_error_elsewhere(broken, configure):
    found = broken(configured(configure))
    assert found == {("KH501", "work", "local", "error"), ("KH501", "work", "vertex", "error"), TWO_DOCUMENTS}


def test_a_local_run_passes_over_a_secret_in_silence(run):
    pipeline = configured(lambda task: kubernetes.use_secret_as_env(task, "secret", {"key": "TOKEN"}), note_secret)
    outcome = run(pipeline)
    assert (outcome.error, outcome.notes) == ("", ["no token"])


def test_making_a_volume_claim_is_an_error_elsewhere(broken):
    @dsl.pipeline(name="p")
    def pipeline():
        claim = kubernetes.CreatePVC(pvc_name_suffix="-data", access_modes=["ReadWriteOnce"], size="1Gi")
        kubernetes.DeletePVC(pvc_name=claim.outputs["name"])

    expected = {(task, target) for task in ("createpvc", "deletepvc") for target in ("local", "vertex")}
    assert broken(pipeline) == {("KH501", task, target, "error") for task, target in expected}


def test_a_workspace_is_an_error_on_vertex(broken):
    config = dsl.PipelineConfig(workspace=dsl.WorkspaceConfig(size="1Gi"))

    @dsl.pipeline(name="p", pipeline_config=config)
    def pipeline():
        work()

    assert broken(pipeline) == {("KH501", "", "vertex", "error"), TWO_DOCUMENTS}


def test_a_step_without_kubernetes_settings_is_fine(broken):
    assert broken(configured(lambda task: task.set_env_variable("LEVEL", "info"))) == set()  # nor KH501, KH502


# KH502 kubernetes-placement


@pytest.mark.parametrize(
    "configure",
    [
        lambda task: kubernetes.add_node_selector(task, "disk", "ssd"),
        lambda task: kubernetes.add_toleration(task, key="gpu", operator="Exists", effect="NoSchedule"),
        lambda task: kubernetes.set_image_pull_policy(task, "Always"),
        lambda task: kubernetes.set_image_pull_secrets(task, ["registry"]),
        lambda task: kubernetes.add_pod_label(task, "team", "ml"),
        lambda task: kubernetes.set_timeout(task, 60),
        lambda task: kubernetes.set_security_context(task, run_as_non_root=True),
    ],
)
def test_placement_on_kubernetes_is_a_warning_on_vertex(broken, configure):
    assert broken(configured(configure)) == {("KH502", "work", "vertex", "warning"), TWO_DOCUMENTS}


def test_kubernetes_settings_are_fine_for_kubeflow(broken):
    def configure(task):
        kubernetes.add_node_selector(task, "disk", "ssd")
        kubernetes.use_secret_as_env(task, "secret", {"key": "TOKEN"})

    assert broken(configured(configure), ["kubeflow"]) == set()  # neither KH501 nor KH502


# KH503 accelerator-type


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("nvidia.com/gpu", {"vertex"}),
        ("amd.com/gpu", {"vertex"}),
        ("NVIDIA_TESLA_T4", {"kubeflow"}),
        ("TPU_V5_LITEPOD", {"kubeflow"}),
        ("nvidia-tesla-t4", {"kubeflow", "vertex"}),
    ],
)
def test_a_type_of_accelerator_is_an_error_where_it_is_not_known(broken, kind, targets):
    pipeline = configured(lambda task: task.set_accelerator_type(kind).set_accelerator_limit(1))
    assert broken(pipeline) == {("KH503", "work", target, "error") for target in targets}


def test_a_type_of_accelerator_is_fine_where_it_is_known_or_a_parameter(broken):
    @dsl.pipeline(name="p")
    def pipeline(kind: str):
        work().set_accelerator_type(kind).set_accelerator_limit(1)

    pinned = configured(lambda task: task.set_accelerator_type("NVIDIA_L4").set_accelerator_limit(1))
    assert broken(pipeline) == set()  # so KH503 is not among them
    assert broken(pinned, ["vertex", "local"]) == set()


def test_every_accelerator_of_vertex_ai_is_taken_for_one():
    types = pytest.importorskip(
        "google.cloud.aiplatform_v1.types.accelerator_type", reason="the extra [vertex] is not installed"
    )
    names = types.AcceleratorType.__members__
    assert len(names) > 10
    assert [name for name in names if not VERTEX_ACCELERATOR.fullmatch(name)] == []


# KH504 resource-request


@pytest.mark.parametrize(
    "configure",
    [lambda task: task.set_cpu_request("2"), lambda task: task.set_memory_limit("8G").set_memory_request("4G")],
)
def test_a_request_is_a_warning_on_vertex(broken, configure):
    assert broken(configured(configure)) == {("KH504", "work", "vertex", "warning")}


def test_limits_are_fine(broken):
    assert broken(configured(lambda task: task.set_cpu_limit("2").set_memory_limit("8G"))) == set()  # so not KH504
