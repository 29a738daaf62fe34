"""Packages for Kubeflow, read with the protobufs of the pipeline format and of kfp-kubernetes."""

import logging
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import dsl, kubernetes
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid import __version__, images
from kfp_hybrid.components.training.train_distributed.placement import Pod
from kfp_hybrid.components.training.train_model.component import train_model
from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.pipelines.hello import concatenate, reverse
from kfp_hybrid.profiles import KubeflowProfile
from kfp_hybrid.profiles.models import Resources
from kfp_hybrid.sources import build, compile_pipeline, pipeline_names
from kfp_hybrid.targets.kubeflow import KubeflowTarget

HOST = "https://kubeflow.example.com/pipeline"
EVERYTHING = {
    "registry": "registry.example.com:5000/ml",
    "images": {"tensorflow": f"sha256:{'4f' * 32}", "validation": "1.4.0"},
    "namespace": "team-a",
    "pull_secrets": ["registry-credentials"],
    "node_selector": {"example.com/pool": "pipelines"},
    "tolerations": [{"key": "example.com/pool", "value": "pipelines", "effect": "NoSchedule"}],
    "secrets": {
        "storage": {
            "secret": "s3-credentials",
            "env": {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"},
            "path": "/secrets/s3",
        },
        "same": {"secret": "keys", "env": {"FIRST": "key", "SECOND": "key"}, "optional": True},
    },
}


def target(resources=None, **settings):
    profile = KubeflowProfile.model_validate({"kind": "kubeflow", "host": HOST, **settings})
    return KubeflowTarget("onprem", profile, lambda name: (resources or {}).get(name, Resources()))


@dataclass
class Compiled:
    """A package: both of its documents."""

    spec: Any
    platform: Any
    text: str

    def container(self, step):
        return self.spec.deployment_spec["executors"][f"exec-{step}"]["container"]

    def kubernetes(self, step):
        executors = self.platform.platforms["kubernetes"].deployment_spec.executors
        config = json_format.MessageToDict(executors[f"exec-{step}"])
        return json_format.ParseDict(config, kubernetes_pb2.KubernetesExecutorConfig())

    def executors(self):
        return {label.removeprefix("exec-") for label, executor in self.spec.deployment_spec["executors"].items()
                if "container" in executor}  # fmt: skip

    def task(self, name):
        return self.spec.root.dag.tasks[name]

    def constants(self, name):
        return {
            key: json_format.MessageToDict(value.runtime_value.constant)
            for key, value in self.task(name).inputs.parameters.items()
            if value.WhichOneof("kind") == "runtime_value"
        }


@pytest.fixture
def compiled(tmp_path):
    def write(pipeline, on):
        path = tmp_path / "package.yaml"
        if isinstance(pipeline, str):
            compile_pipeline(pipeline, on, path)
        else:
            on.compile(pipeline, path)
        text = path.read_text()
        spec, platform = yaml.safe_load_all(text)
        return Compiled(
            json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec()),
            json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec()),
            text,
        )

    return write


def one_step(on, **configuration):
    """A pipeline of one step, which is configured so."""

    @dsl.pipeline(name="one-step")
    def pipeline():
        on.configure(concatenate(first="a", second="b"), **configuration)

    return pipeline


# -------------------------------------------------------------------------------------------- what every step gets


@pytest.mark.parametrize("name", pipeline_names())
def test_every_step_has_the_images_nodes_and_security_context_of_the_profile(name, compiled):
    package = compiled(name, target(**EVERYTHING))
    assert package.executors()
    for step in package.executors():
        image = package.container(step)["image"]
        assert image.startswith("registry.example.com:5000/ml/") and images.name_of(image) in images.names()
        config = package.kubernetes(step)
        assert config.node_selector.labels["example.com/pool"] == "pipelines"
        assert [toleration.key for toleration in config.tolerations] == ["example.com/pool"]
        assert [secret.secret_name for secret in config.image_pull_secret] == ["registry-credentials"]
        parameter = config.image_pull_secret[0].secret_name_parameter
        assert parameter.runtime_value.constant.string_value == "registry-credentials"
        context = config.security_context
        assert (context.run_as_user, context.run_as_group, context.run_as_non_root) == (10001, 10001, True)


def test_a_step_with_a_gpu_has_the_image_with_cuda_and_no_other_step(compiled):
    package = compiled("train_and_publish", target({"training": Resources(accelerator="L4")}, registry="r.local/ml"))
    assert package.container("train-model")["image"] == f"r.local/ml/tensorflow:{__version__}-gpu"
    assert package.container("evaluate-model")["image"] == f"r.local/ml/tensorflow:{__version__}"


def test_the_nodes_of_a_training_with_gpus_have_the_image_with_cuda(compiled):
    resources = {"training": Resources(accelerator="L4", nodes=2)}
    package = compiled("train_and_publish", target(resources, registry="r.local/ml"))
    assert f"r.local/ml/tensorflow:{__version__}-gpu" in package.text


def test_a_version_that_the_profile_gives_is_taken_with_a_gpu_too(compiled):
    package = compiled("train_and_publish", target({"training": Resources(accelerator="L4")}, **EVERYTHING))
    assert package.container("train-model")["image"].endswith("4f4f")


def test_spot_nodes_without_a_way_onto_them_are_warned_of_with_several_nodes_too(compiled, caplog):
    compiled("train_and_publish", target({"training": Resources(nodes=2, spot=True)}))
    assert "resources training: the profile has no table `spot`" in caplog.text


def test_a_platform_that_chooses_the_user_itself_gets_no_security_context(compiled):
    package = compiled("hello", target(security_context=False))
    assert not any(package.kubernetes(step).HasField("security_context") for step in package.executors())


def test_images_are_taken_by_the_digest_or_tag_of_the_profile(compiled):
    package = compiled("train_and_publish", target(**EVERYTHING))
    assert package.container("train-model")["image"] == f"registry.example.com:5000/ml/tensorflow@sha256:{'4f' * 32}"
    assert package.container("generate-statistics")["image"] == "registry.example.com:5000/ml/validation:1.4.0"
    assert package.container("push-model")["image"] == f"registry.example.com:5000/ml/deployment:{__version__}"


def test_a_profile_that_says_nothing_leaves_the_public_images_and_the_security_context(compiled):
    package = compiled("hello", target())
    assert package.container("reverse")["image"] == images.DEPLOYMENT
    config = package.kubernetes("reverse")
    assert [field.name for field, _ in config.ListFields()] == ["security_context"]


def test_foreign_images_keep_their_reference_and_user_and_get_the_nodes(compiled):
    @dsl.container_component
    def foreign():
        return dsl.ContainerSpec(image="ghcr.io/somebody/tensorflow:2", command=["true"])

    @dsl.pipeline(name="mixed")
    def mixed():
        foreign()

    package = compiled(mixed, target(**EVERYTHING))
    assert package.container("foreign")["image"] == "ghcr.io/somebody/tensorflow:2"
    config = package.kubernetes("foreign")
    assert not config.HasField("security_context")
    assert config.node_selector.labels["example.com/pool"] == "pipelines"
    assert config.image_pull_secret


def test_what_a_pipeline_says_of_a_step_stays(compiled):
    @dsl.pipeline(name="own")
    def own():
        task = kubernetes.add_node_selector(concatenate(first="a", second="b"), "example.com/pool", "other")
        kubernetes.set_security_context(task, run_as_user=2000)

    config = compiled(own, target(**EVERYTHING)).kubernetes("concatenate")
    assert config.node_selector.labels["example.com/pool"] == "other"
    assert (config.security_context.run_as_user, config.security_context.run_as_non_root) == (2000, True)


@pytest.mark.parametrize("name", ["hello", "train_and_publish", "deploy"])
def test_the_same_source_and_profile_give_the_same_bytes(name, compiled):
    assert compiled(name, target(**EVERYTHING)).text == compiled(name, target(**EVERYTHING)).text


@pytest.mark.parametrize("name", pipeline_names())
def test_packages_pass_the_linter(name, compiled, tmp_path):
    compiled(name, target(**EVERYTHING))
    assert target().lint(Package.load(tmp_path / "package.yaml")) == []


def test_parameters_keep_their_descriptions_and_defaults(compiled):
    package = compiled("hello", target())
    parameter = package.spec.root.input_definitions.parameters["first"]
    assert (parameter.description, parameter.default_value.string_value) == ("The first text.", "hello")
    assert package.spec.pipeline_info.display_name == "Hello"
    assert "# Description: Put two texts together and turn the result round" in package.text


def test_no_credential_of_the_profile_is_in_a_package(compiled, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("a-secret-token")
    (tmp_path / "cookie").write_text("authservice_session=a-secret-cookie")
    for auth in ({"kind": "token", "file": str(tmp_path / "token")},
                 {"kind": "cookie", "file": str(tmp_path / "cookie")}):  # fmt: skip
        text = compiled("train_and_publish", target(auth=auth, **EVERYTHING)).text
        assert "a-secret" not in text and str(tmp_path) not in text and HOST not in text


# ----------------------------------------------------------------------------------------------- custom resources


def test_custom_resources_hold_the_completed_pipeline(tmp_path):
    on = target(**EVERYTHING)
    path = tmp_path / "resources.yaml"
    on.compile_custom_resources(build("hello", on), path, "1.4.0+local")
    pipeline, version = yaml.safe_load_all(path.read_text())
    assert pipeline["kind"] == "Pipeline"
    assert pipeline["metadata"] == {"name": "hello", "namespace": "team-a"}
    assert pipeline["spec"]["displayName"] == "Hello"
    assert version["kind"] == "PipelineVersion"
    assert version["metadata"] == {"name": "hello-1.4.0-local", "namespace": "team-a"}
    assert (version["spec"]["displayName"], version["spec"]["pipelineName"]) == ("1.4.0+local", "hello")
    json_format.ParseDict(version["spec"]["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    platform = json_format.ParseDict(version["spec"]["platformSpec"], pipeline_spec_pb2.PlatformSpec())
    assert set(platform.platforms["kubernetes"].deployment_spec.executors) == {"exec-concatenate", "exec-reverse"}


def test_the_version_of_custom_resources_is_that_of_this_package(tmp_path):
    on = target()
    on.compile_custom_resources(build("hello", on), tmp_path / "resources.yaml")
    _, version = yaml.safe_load_all((tmp_path / "resources.yaml").read_text())
    assert version["metadata"] == {"name": f"hello-{__version__}"}


@pytest.mark.parametrize("version", ["1.0 beta", "1_0", "", "v1-", "x" * 300])
def test_a_version_that_cannot_be_in_the_name_of_a_resource(tmp_path, version):
    on = target()
    with pytest.raises(UserError, match="no version for a Kubernetes resource"):
        on.compile_custom_resources(build("hello", on), tmp_path / "resources.yaml", version)
    assert not (tmp_path / "resources.yaml").exists()


def test_a_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    on = target()
    with pytest.raises(UserError, match=r"cannot write .*/file/package.yaml"):
        on.compile(build("hello", on), tmp_path / "file" / "package.yaml")
    with pytest.raises(UserError, match=r"cannot write .*/package.json: the name of a package ends in .yaml"):
        on.compile(build("hello", on), tmp_path / "package.json")


# ------------------------------------------------------------------------------------------- what a step asks for


def test_resources_are_limits_and_accelerators_kubernetes_resources(compiled):
    on = target({"training": Resources(cpu=4, memory="16Gi", accelerator="L4", count=2)})
    package = compiled(one_step(on, resources="training"), on)
    limits = package.container("concatenate")["resources"]
    assert (limits["cpuLimit"], limits["memoryLimit"]) == (4.0, 17.179869184)
    assert dict(limits["accelerator"]) == {
        "type": "nvidia.com/gpu", "resourceType": "nvidia.com/gpu", "count": "2", "resourceCount": "2",
    }  # fmt: skip
    assert dict(package.kubernetes("concatenate").node_selector.labels) == {
        "cloud.google.com/gke-accelerator": "nvidia-l4"
    }


def test_labels_of_accelerators_are_those_of_the_profile_beside_the_default_ones(compiled):
    on = target(
        {"training": Resources(accelerator="T4")},
        accelerator_labels={"T4": {"nvidia.com/gpu.product": "Tesla-T4"}},
        **EVERYTHING,
    )
    config = compiled(one_step(on, resources="training"), on).kubernetes("concatenate")
    assert dict(config.node_selector.labels) == {
        "example.com/pool": "pipelines", "nvidia.com/gpu.product": "Tesla-T4"
    }  # fmt: skip
    assert len(config.tolerations) == 1


def test_spot_resources_go_to_spot_nodes(compiled):
    spot = {
        "node_selector": {"cloud.google.com/gke-spot": "true"},
        "tolerations": [{"key": "cloud.google.com/gke-spot", "operator": "Exists", "effect": "NoSchedule"}],
    }
    on = target({"cheap": Resources(spot=True)}, spot=spot, **EVERYTHING)
    config = compiled(one_step(on, resources="cheap"), on).kubernetes("concatenate")
    assert config.node_selector.labels["cloud.google.com/gke-spot"] == "true"
    assert [toleration.key for toleration in config.tolerations] == ["example.com/pool", "cloud.google.com/gke-spot"]


def test_spot_resources_without_spot_nodes_are_a_warning(compiled, caplog):
    on = target({"cheap": Resources(spot=True)})
    with caplog.at_level(logging.WARNING):
        compiled(one_step(on, resources="cheap"), on)
    assert "resources cheap: the profile has no table `spot`" in caplog.text


def test_a_toleration_of_seconds_is_kept(compiled):
    toleration = {"key": "maintenance", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 300}
    config = compiled("hello", target(tolerations=[toleration])).kubernetes("reverse")
    assert config.tolerations == [kubernetes_pb2.Toleration(**toleration)]


def test_secrets_are_references(compiled):
    on = target(**EVERYTHING)
    config = compiled(one_step(on, secrets=["storage", "same"]), on).kubernetes("concatenate")
    found = [
        (secret.secret_name, pair.secret_key, pair.env_var, secret.optional)
        for secret in config.secret_as_env
        for pair in secret.key_to_env
    ]
    assert found == [
        ("s3-credentials", "accesskey", "AWS_ACCESS_KEY_ID", False),
        ("s3-credentials", "secretkey", "AWS_SECRET_ACCESS_KEY", False),
        ("keys", "key", "FIRST", True),
        ("keys", "key", "SECOND", True),
    ]
    (volume,) = config.secret_as_volume
    assert (volume.secret_name, volume.mount_path, volume.optional) == ("s3-credentials", "/secrets/s3", False)


def test_a_secret_that_the_profile_lacks_is_left_out(compiled):
    on = target()
    config = compiled(one_step(on, secrets=["storage"]), on).kubernetes("concatenate")
    assert not config.secret_as_env and not config.secret_as_volume


def test_retries_have_growing_pauses(compiled):
    on = target()
    policy = compiled(one_step(on, retries=3), on).task("concatenate").retry_policy
    assert policy.max_retry_count == 3
    assert (policy.backoff_duration.seconds, policy.backoff_factor) == (30, 2.0)


def test_a_step_that_takes_days_is_still_tried_again(compiled):
    # Argo counts the longest duration from the beginning of the first try, and ends later tries when it is over.
    on = target()
    policy = compiled(one_step(on, retries=3), on).task("concatenate").retry_policy
    assert policy.backoff_max_duration.seconds >= 7 * 24 * 3600


def test_a_timeout_is_a_deadline_of_the_pod(compiled):
    on = target()
    assert compiled(one_step(on, timeout_seconds=600), on).kubernetes("concatenate").active_deadline_seconds == 600


@pytest.mark.parametrize("cache", [True, False])
def test_the_cache_is_used_or_not(compiled, cache):
    on = target()
    assert compiled(one_step(on, cache=cache), on).task("concatenate").caching_options.enable_cache is cache


# ------------------------------------------------------------------------------------------------------- training


def training(on, component=train_model, **inputs):
    @dsl.pipeline(name="training")
    def pipeline():
        kinds = {"examples": dsl.Dataset, "statistics": dsl.Artifact, "schema": dsl.Artifact}
        data = {name: dsl.importer(f"s3://bucket/{name}", kind).output for name, kind in kinds.items()}
        on.train(component, **data, label="late", **inputs)

    return pipeline


def test_training_on_one_node_is_a_step(compiled):
    on = target({"training": Resources(cpu=8)})
    package = compiled(training(on), on)
    assert package.container("train-model")["resources"]["cpuLimit"] == 8.0


def test_training_on_several_nodes_starts_a_train_job(compiled):
    on = target(
        {"training": Resources(cpu=8, memory="32Gi", accelerator="L4", nodes=4)},
        training_runtime="own-runtime", service_account="runner", **EVERYTHING,
    )  # fmt: skip
    package = compiled(training(on, epochs=3), on)
    given = package.constants("train-distributed")
    assert (given["nodes"], given["runtime"], given["namespace"]) == (4.0, "own-runtime", "team-a")
    assert (given["service_account"], given["epochs"]) == ("runner", 3.0)
    assert given["image"] == f"registry.example.com:5000/ml/tensorflow@sha256:{'4f' * 32}"
    pod = Pod.parse(given["pod"])
    assert pod.resources == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}
    assert pod.node_selector == {"example.com/pool": "pipelines", "cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert [dict(toleration) for toleration in pod.tolerations] == [
        {"key": "example.com/pool", "operator": "Equal", "value": "pipelines", "effect": "NoSchedule"}
    ]
    assert list(pod.pull_secrets) == ["registry-credentials"]
    assert [(secret.secret, secret.path) for secret in pod.secrets] == [("s3-credentials", "/secrets/s3")]
    assert "accelerator" not in package.container("train-distributed").fields.get("resources", {})


def test_several_nodes_are_for_train_model_alone(compiled):
    on = target({"training": Resources(nodes=2)})
    with pytest.raises(UserError, match="resources training: only train_model trains on 2 nodes on Kubeflow"):
        compiled(one_training_of(on, reverse), on)


def one_training_of(on, component):
    @dsl.pipeline(name="training")
    def pipeline():
        on.train(component, text="a")

    return pipeline


def test_training_without_code_takes_the_default_model(compiled):
    assert {"train-model", "predict-batch"} <= compiled("train_without_code", target()).executors()


# -------------------------------------------------------------------------------------------------------- serving


@pytest.mark.parametrize("name", ["deploy", "shift_traffic"])
def test_serving_is_that_of_the_profile_and_never_cached(name, compiled):
    package = compiled(name, target(serving="deployment", **EVERYTHING))
    given = package.constants("deploy-model")
    assert given["serving"] == "deployment"
    assert (given["namespace"], given["storage_secret"]) == ("team-a", "s3-credentials")
    assert given["run"] == dsl.PIPELINE_JOB_ID_PLACEHOLDER
    assert not package.task("deploy-model").caching_options.enable_cache


def test_pods_that_serve_get_the_resources_called_serving_on_the_nodes_of_the_profile(compiled):
    serving = Resources(cpu=2, memory="4Gi", accelerator="L4")
    given = compiled("deploy", target({"serving": serving}, **EVERYTHING)).constants("deploy-model")
    limits = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"}
    assert given["resources"] == {"requests": limits, "limits": limits}
    assert given["node_selector"]["example.com/pool"] == "pipelines"
    assert [toleration["key"] for toleration in given["tolerations"]] == ["example.com/pool"]
    assert given["pull_secrets"] == EVERYTHING["pull_secrets"]
    assert given["download_image"].startswith("registry.example.com:5000/ml/deployment:")


def test_models_are_served_by_the_server_that_was_tried_with_images_of_the_registry_of_the_profile(compiled):
    given = compiled("deploy", target(**EVERYTHING)).constants("deploy-model")
    assert (given["server"], given["image"]) == ("auto", "")
    assert given["server_images"] == {
        "kfp-hybrid": f"registry.example.com:5000/ml/serving:{__version__}",
        "kfp-hybrid-tensorflow": f"registry.example.com:5000/ml/tensorflow@{EVERYTHING['images']['tensorflow']}",
    }


def test_a_gpu_for_what_serves_chooses_tensorflow_with_cuda(compiled):
    serving = Resources(accelerator="L4")
    given = compiled("deploy", target({"serving": serving})).constants("deploy-model")
    assert given["server"] == "kfp-hybrid-tensorflow"
    assert given["server_images"]["kfp-hybrid-tensorflow"].endswith("-gpu")


def test_tensorflow_serving_may_have_another_image(compiled):
    chosen = {"server": "tensorflow-serving", "serving_image": "r.local/tf:1"}
    given = compiled("deploy", target(**chosen, **EVERYTHING)).constants("deploy-model")
    assert (given["server"], given["image"]) == ("tensorflow-serving", "r.local/tf:1")


@pytest.mark.parametrize(
    ("server", "accelerator", "engine"),
    [
        ("auto", None, "auto"),
        ("auto", "L4", "tensorflow"),
        ("kfp-hybrid", None, "litert"),
        ("kfp-hybrid-tensorflow", None, "tensorflow"),
        ("tensorflow-serving", None, "tensorflow"),
    ],
)
def test_a_model_is_tried_on_the_engine_that_will_run_it(compiled, server, accelerator, engine):
    chosen = target({"serving": Resources(accelerator=accelerator)}, server=server)
    dags = [each.dag.tasks for each in compiled("train_and_publish", chosen).spec.components.values()]
    (task,) = [tasks["validate-serving"] for tasks in dags if "validate-serving" in tasks]
    assert task.inputs.parameters["engine"].runtime_value.constant.string_value == engine


def test_serving_needs_no_credentials_where_the_profile_has_none(compiled):
    given = compiled("deploy", target()).constants("deploy-model")
    assert (given["serving"], given["namespace"], given["storage_secret"]) == ("kserve", "", "")
