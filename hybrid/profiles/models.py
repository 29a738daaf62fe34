"""What `kfp-hybrid.toml` holds. `docs/profiles.md` is made from these models."""

import difflib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from kfp_hybrid import __version__, images
from kfp_hybrid.accelerators import accelerator
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles.values import (
    Accelerator,
    CloudLabelKey,
    CloudLabelValue,
    CloudStorageRoot,
    CryptoKey,
    FilePath,
    ImageVersion,
    KubernetesName,
    KubernetesObject,
    LabelKey,
    LabelValue,
    Location,
    Memory,
    MountPath,
    Name,
    Network,
    NetworkAttachment,
    ObjectStoreRoot,
    Project,
    Registry,
    SecretKey,
    SecretVersion,
    ServiceAccountEmail,
    Text,
    Url,
    VariableName,
)

_GIB = {"Mi": 2**-10, "Gi": 1, "Ti": 2**10, "M": 1e6 / 2**30, "G": 1e9 / 2**30, "T": 1e12 / 2**30}


class Table(pydantic.BaseModel):
    """A table of the file: it has the keys of the model and no others, and nothing is converted."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _no_unknown_key(cls, data: Any) -> Any:
        """pydantic would refuse an unknown key too, but without saying which there are."""
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                close = difflib.get_close_matches(key, cls.model_fields, 1)
                hint = f"did you mean {close[0]}?" if close else f"the table takes: {', '.join(cls.model_fields)}"
                raise PydanticCustomError("unknown_key", "there is no such key; {hint}", {"key": key, "hint": hint})
        return data


# ---------------------------------------------------------------------------------------------------- resources


class Resources(Table):
    """What a step gets: `target.configure(task, resources="NAME")` in a pipeline asks for it by name."""

    cpu: float | None = Field(
        default=None, ge=0.001, allow_inf_nan=False, description="CPUs; a step gets no more.", examples=[4]
    )
    memory: Memory | None = Field(
        default=None, description="Memory; a step that needs more is ended.", examples=["16Gi"]
    )
    accelerator: Accelerator | None = Field(
        default=None, description="An accelerator by its neutral name; see the table below.", examples=["L4"]
    )
    count: int = Field(default=1, ge=1, description="How many of the accelerator.", examples=[2])
    spot: bool = Field(
        default=False, description="Use spare capacity, which is cheaper and can be taken away.", examples=[True]
    )
    nodes: int = Field(
        default=1,
        ge=1,
        description="Machines that train one model, or share one batch prediction; other steps take one.",
        examples=[2],
    )

    @model_validator(mode="after")
    def _count_of_something(self) -> "Resources":
        if self.accelerator is None and "count" in self.model_fields_set:
            raise ValueError("count needs an accelerator")
        return self

    @property
    def cpu_limit(self) -> str | None:
        """The CPUs as `PipelineTask.set_cpu_limit` takes them."""
        return None if self.cpu is None else f"{self.cpu:g}"

    @property
    def memory_gib(self) -> float:
        """The memory in GiB, 0 when there is none given."""
        if self.memory is None:
            return 0
        number = self.memory.rstrip("MGTi")
        return int(number) * _GIB[self.memory.removeprefix(number)]


# ------------------------------------------------------------------------------------------------------- images


class Images(Table):
    """Which version of an image to take instead of the one that belongs to this version of kfp-hybrid."""

    validation: ImageVersion | None = Field(
        default=None, description="The image of the data components, by tag or digest.", examples=["1.4.0"]
    )
    tensorflow: ImageVersion | None = Field(
        default=None,
        description="The image of training, evaluation and export; steps with a GPU then take it too, instead of the "
        "variant with CUDA.",
        examples=[f"sha256:{'4f' * 32}"],
    )
    deployment: ImageVersion | None = Field(
        default=None, description="The image of publishing and deployment.", examples=[f"1.4.0@sha256:{'4f' * 32}"]
    )
    serving: ImageVersion | None = Field(default=None, description="The image of the model server.", examples=["1.4.0"])


class _Cluster(Table):
    """What targets that run images have in common."""

    registry: Registry = Field(
        default=images.REGISTRY,
        description="Where the images are: the registry and folder before their names.",
        examples=["registry.example.com:5000/ml"],
    )
    images: Images = Field(
        default=Images(),
        description="Versions of single images: a table of its own, below.",
        examples=[{"tensorflow": "1.4.0"}],
    )


_OUR_SERVERS = (
    "auto is the one that `validate_serving` tries, on LiteRT for a model with an edge bundle and without a GPU, "
    "otherwise on TensorFlow; kfp-hybrid is always LiteRT, kfp-hybrid-tensorflow always TensorFlow."
)


def _refuse_unused_image(image: str | None, server: str, its_server: str) -> None:
    """Refuse an image that the model server of the profile is not."""
    if image and server != its_server:
        raise PydanticCustomError(
            "unused_image",
            'is for server = "{server}"; set that too, or remove this',
            {"key": "serving_image", "server": its_server},
        )


# -------------------------------------------------------------------------------------- how to sign in to Kubeflow


class NoAuth(Table):
    """No authentication: a single-user installation that only this machine or network can reach."""

    kind: Literal["none"] = Field(default="none", description="No authentication.", examples=["none"])


class TokenAuth(Table):
    """A bearer token in a file; it is read anew for each command, so that it may be rotated."""

    kind: Literal["token"] = Field(description="A bearer token in a file.", examples=["token"])
    file: FilePath = Field(description="The file that holds the token.", examples=["~/.config/kubeflow/token"])

    def token(self) -> str:
        """The token.

        Raises:
            UserError: the file cannot be read or is empty.
        """
        return _read_secret(self.file, "the bearer token")


class ServiceAccountAuth(Table):
    """The service-account token volume of a pod: for commands that run in the cluster."""

    kind: Literal["service-account"] = Field(
        description="A projected service-account token.", examples=["service-account"]
    )
    file: FilePath = Field(
        default=Path("/var/run/secrets/kubeflow/pipelines/token"),
        description="Where the token volume is mounted.",
        examples=["/var/run/secrets/kubeflow/pipelines/token"],
    )

    def token(self) -> str:
        """The token.

        Raises:
            UserError: the file cannot be read or is empty.
        """
        return _read_secret(self.file, "the service-account token")


class CookieAuth(Table):
    """The session cookie of a Dex or OIDC login, such as `authservice_session=...`, from a file or a variable."""

    kind: Literal["cookie"] = Field(description="The session cookie of a Dex or OIDC login.", examples=["cookie"])
    file: FilePath | None = Field(
        default=None,
        description="The file that holds the cookie; either this or env.",
        examples=["~/.config/kubeflow/cookie"],
    )
    env: VariableName | None = Field(
        default=None,
        description="The environment variable that holds it; either this or file.",
        examples=["KFP_COOKIE"],
    )

    @model_validator(mode="after")
    def _one_source(self) -> "CookieAuth":
        if (self.file is None) == (self.env is None):
            raise ValueError("needs either file or env")
        return self

    def cookie(self) -> str:
        """The cookie, `NAME=VALUE`.

        Raises:
            UserError: the file cannot be read, the variable is not set, or it is empty.
        """
        if self.file is not None:
            return _read_secret(self.file, "the session cookie")
        cookie = os.environ.get(self.env or "", "").strip()
        if not cookie:
            raise UserError(f"the environment variable {self.env} with the session cookie is not set; log in first")
        return cookie


class PortForwardAuth(Table):
    """A port-forward to the service in the cluster, with the rights of a kubeconfig."""

    kind: Literal["kubeconfig"] = Field(
        description="A port-forward with the rights of a kubeconfig.", examples=["kubeconfig"]
    )
    file: FilePath | None = Field(
        default=None,
        description="The kubeconfig; $KUBECONFIG or ~/.kube/config when left out.",
        examples=["~/.kube/onprem"],
    )
    context: Text | None = Field(
        default=None, description="The context in it; its current one when left out.", examples=["kind-kfp"]
    )
    namespace: KubernetesName = Field(
        default="kubeflow", description="Where Kubeflow Pipelines is installed.", examples=["kubeflow"]
    )
    service: KubernetesName = Field(
        default="ml-pipeline-ui", description="The service to forward to.", examples=["ml-pipeline-ui"]
    )
    port: int = Field(default=80, ge=1, le=65535, description="The port of the service.", examples=[80])


Auth = Annotated[NoAuth | TokenAuth | ServiceAccountAuth | CookieAuth | PortForwardAuth, Field(discriminator="kind")]


def _read_secret(file: Path, what: str) -> str:
    try:
        secret = file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(f"cannot read {what} from {file}: {reason}") from None
    if not secret:
        raise UserError(f"{file} is empty; it must hold {what}")
    return secret


# ------------------------------------------------------------------------------------------------------ secrets


class KubernetesSecret(Table):
    """A reference to a Kubernetes secret in the namespace of the runs; the package carries names, never values."""

    secret: KubernetesObject = Field(description="The name of the Kubernetes secret.", examples=["s3-credentials"])
    env: dict[VariableName, SecretKey] = Field(
        default={},
        description="Environment variables of the step, and the key of the secret that each takes its value from.",
        examples=[{"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}],
    )
    path: MountPath | None = Field(
        default=None, description="Where the step finds the secret's keys as files.", examples=["/secrets/s3"]
    )
    optional: bool = Field(
        default=False, description="Start the step even when the secret is not there.", examples=[True]
    )

    @model_validator(mode="after")
    def _of_some_use(self) -> "KubernetesSecret":
        if not self.env and self.path is None:
            raise ValueError("needs env or path, or the step would not see the secret")
        return self


class SecretManagerSecret(Table):
    """References to secrets in Secret Manager, which a step reads when it runs, with its service account."""

    env: dict[VariableName, SecretVersion] = Field(
        min_length=1,
        description="Variables that the storage module wants, and the secret version that each takes its value from.",
        examples=[{"AWS_SECRET_ACCESS_KEY": "projects/ml-production/secrets/s3-secret-key/versions/latest"}],
    )


# ------------------------------------------------------------------------------------------------------ targets


class LocalProfile(Table):
    """This machine. A target `local` is always there; it needs no file."""

    kind: Literal["local"] = Field(default="local", description="Runs on this machine.", examples=["local"])


class Toleration(Table):
    """A taint of nodes that steps may run on in spite of."""

    key: LabelKey | None = Field(
        default=None, description="The taint's key; any, when left out.", examples=["nvidia.com/gpu"]
    )
    operator: Literal["Equal", "Exists"] = Field(
        default="Equal", description="Whether the taint's value must be equal to `value`.", examples=["Exists"]
    )
    value: LabelValue | None = Field(default=None, description="The taint's value.", examples=["present"])
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="The taint's effect; any, when left out.", examples=["NoSchedule"]
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, description="How long a step stays on a node that gets a NoExecute taint.", examples=[300]
    )

    @model_validator(mode="after")
    def _as_kubernetes_wants_it(self) -> "Toleration":
        if self.operator == "Exists" and self.value is not None:
            raise ValueError("operator Exists takes no value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError('needs a key, or operator = "Exists"')
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError('toleration_seconds needs effect = "NoExecute"')
        return self


class SpotNodes(Table):
    """How to get onto nodes of spare capacity."""

    node_selector: dict[LabelKey, LabelValue] = Field(
        min_length=1, description="The labels of these nodes.", examples=[{"cloud.google.com/gke-spot": "true"}]
    )
    tolerations: list[Toleration] = Field(
        default=[],
        description="The taints of these nodes.",
        examples=[[{"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"}]],
    )


class KubeflowProfile(_Cluster):
    """Kubeflow Pipelines 2.x on any Kubernetes."""

    kind: Literal["kubeflow"] = Field(description="Runs on Kubeflow Pipelines.", examples=["kubeflow"])
    host: Url | None = Field(
        default=None,
        description="The address of the Kubeflow Pipelines UI and API; needed except with a port-forward.",
        examples=["https://kubeflow.example.com/pipeline"],
    )
    namespace: KubernetesName | None = Field(
        default=None,
        description="The namespace of the runs in a multi-user installation; leave it out in a single-user one.",
        examples=["team-a"],
    )
    auth: Auth = Field(
        default=NoAuth(),
        description="How to sign in: a table of its own, below.",
        examples=[{"kind": "token", "file": "~/.config/kubeflow/token"}],
    )
    ca_bundle: FilePath | None = Field(
        default=None,
        description="The certificates (PEM) to trust instead of the system's, for a server with a private authority.",
        examples=["certificates/company-ca.pem"],
    )
    experiment: Text = Field(default="Default", description="The experiment that runs belong to.", examples=["flights"])
    pipeline_root: ObjectStoreRoot | None = Field(
        default=None,
        description="Where runs put their artifacts; the default of the server (or namespace) when left out.",
        examples=["minio://mlpipeline/v2/artifacts"],
    )
    service_account: KubernetesObject | None = Field(
        default=None,
        description="The service account of the steps; that of the installation when left out.",
        examples=["pipeline-runner"],
    )
    pull_secrets: list[KubernetesObject] = Field(
        default=[],
        description="The Kubernetes secrets with which images are pulled.",
        examples=[["registry-credentials"]],
    )
    secrets: dict[Name, KubernetesSecret] = Field(
        default={},
        description="Secrets by the name that pipelines use: tables of their own, below.",
        examples=[{"storage": {"secret": "s3-credentials", "path": "/secrets/s3"}}],
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default={},
        description="The labels of the nodes that steps run on.",
        examples=[{"example.com/pool": "pipelines"}],
    )
    tolerations: list[Toleration] = Field(
        default=[],
        description="The taints that steps tolerate.",
        examples=[[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]],
    )
    accelerator_labels: dict[Accelerator, dict[LabelKey, LabelValue]] = Field(
        default={},
        description="The labels of nodes with an accelerator, where they are not those of GKE; {} for none.",
        examples=[{"T4": {"nvidia.com/gpu.product": "Tesla-T4"}, "L4": {}}],
    )
    spot: SpotNodes | None = Field(
        default=None,
        description="Nodes for resources with `spot = true`: a table of its own, below.",
        examples=[{"node_selector": {"cloud.google.com/gke-spot": "true"}}],
    )

    serving: Literal["kserve", "deployment"] = Field(
        default="kserve",
        description="What serves models: KServe, or a plain Deployment and Service where there is no KServe.",
        examples=["deployment"],
    )
    server: Literal["auto", "kfp-hybrid", "kfp-hybrid-tensorflow", "tensorflow-serving"] = Field(
        default="auto",
        description=f"The model server. {_OUR_SERVERS} tensorflow-serving is that of others.",
        examples=["kfp-hybrid-tensorflow"],
    )
    serving_image: Text | None = Field(
        default=None,
        description='With server = "tensorflow-serving" and serving = "deployment": its image; tensorflow/serving of '
        "Docker Hub when left out.",
        examples=["registry.example.com:5000/ml/tensorflow-serving:2.19.1"],
    )
    security_context: bool = Field(
        default=True,
        description="Run steps as the user of the images, not root; false for Kubeflow Pipelines before 2.16, "
        "and where the platform chooses the user, such as OpenShift.",
        examples=[False],
    )
    training_runtime: KubernetesObject = Field(
        default="kfp-hybrid-tensorflow",
        description="The ClusterTrainingRuntime of Kubeflow Trainer for resources with several nodes.",
        examples=["kfp-hybrid-tensorflow"],
    )

    @model_validator(mode="after")
    def _reachable(self) -> "KubeflowProfile":
        if self.host is None and not isinstance(self.auth, PortForwardAuth):
            raise PydanticCustomError("missing_host", "is missing; only a port-forward needs none", {"key": "host"})
        return self

    @model_validator(mode="after")
    def _served_by_its_image(self) -> "KubeflowProfile":
        _refuse_unused_image(self.serving_image, self.server, "tensorflow-serving")
        return self

    def node_labels(self, resources: Resources) -> dict[str, str]:
        """The labels of nodes that a step with these resources may run on.

        Raises:
            UserError: no host has that many TPU chips.
        """
        labels = dict(self.node_selector)
        if resources.accelerator is not None:
            own = self.accelerator_labels.get(resources.accelerator)
            labels |= accelerator(resources.accelerator).node_labels(resources.count) if own is None else own
        if resources.spot and self.spot:
            labels |= self.spot.node_selector
        return labels

    def node_tolerations(self, resources: Resources) -> list[Toleration]:
        """The taints that a step with these resources tolerates."""
        return [*self.tolerations, *(self.spot.tolerations if resources.spot and self.spot else ())]


PREBUILT = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"


class VertexProfile(_Cluster):
    """Vertex AI Pipelines."""

    kind: Literal["vertex"] = Field(description="Runs on Vertex AI Pipelines.", examples=["vertex"])
    project: Project = Field(description="The Google Cloud project.", examples=["ml-production"])
    location: Location = Field(description="The region.", examples=["europe-west4"])
    pipeline_root: CloudStorageRoot = Field(
        description="Where runs put their artifacts.", examples=["gs://ml-production-pipelines/root"]
    )
    service_account: ServiceAccountEmail | None = Field(
        default=None,
        description="The service account of the steps; that of Compute Engine when left out.",
        examples=["pipelines@ml-production.iam.gserviceaccount.com"],
    )
    encryption_key: CryptoKey | None = Field(
        default=None,
        description="The customer-managed encryption key (CMEK) of runs and models, in the same region.",
        examples=["projects/ml-production/locations/europe-west4/keyRings/ml/cryptoKeys/pipelines"],
    )
    network: Network | None = Field(
        default=None,
        description="The VPC network that steps are peered with; either this or network_attachment.",
        examples=["projects/123456789012/global/networks/ml"],
    )
    reserved_ip_ranges: list[KubernetesName] = Field(
        default=[], description="With network: the names of the reserved ranges to use.", examples=[["vertex-ai-range"]]
    )
    network_attachment: NetworkAttachment | None = Field(
        default=None,
        description="The network attachment of a Private Service Connect interface; either this or network.",
        examples=["projects/ml-production/regions/europe-west4/networkAttachments/vertex"],
    )
    labels: dict[CloudLabelKey, CloudLabelValue] = Field(
        default={}, max_length=64, description="Labels of runs, for instance for billing.", examples=[{"team": "ml"}]
    )
    server: Literal["auto", "kfp-hybrid", "kfp-hybrid-tensorflow", "prebuilt"] = Field(
        default="auto",
        description=f"The model server of endpoints. {_OUR_SERVERS} prebuilt is serving_image.",
        examples=["kfp-hybrid-tensorflow"],
    )
    serving_image: Text | None = Field(
        default=None,
        description='With server = "prebuilt": the image in which endpoints serve models; a TensorFlow of Google\'s, '
        f"{PREBUILT}, when left out.",
        examples=["us-docker.pkg.dev/vertex-ai/prediction/tf2-gpu.2-15:latest"],
    )
    template_repository: Url | None = Field(
        default=None,
        description="The Artifact Registry repository (format KFP) that `register` uploads packages to.",
        examples=["https://europe-west4-kfp.pkg.dev/ml-production/pipelines"],
    )
    api_endpoint: Url | None = Field(
        default=None,
        description="The address of the Vertex AI API, where it is not the public one of the region.",
        examples=["https://europe-west4-aiplatform.restricted.example.com"],
    )
    secrets: dict[Name, SecretManagerSecret] = Field(
        default={},
        description="Secrets by the name that pipelines use: tables of their own, below.",
        examples=[{"storage": {"env": {"AWS_SECRET_ACCESS_KEY": "projects/ml-production/secrets/s3/versions/3"}}}],
    )

    @model_validator(mode="after")
    def _one_network(self) -> "VertexProfile":
        if self.network and self.network_attachment:
            raise ValueError("takes either network or network_attachment, not both")
        if self.reserved_ip_ranges and not self.network:
            raise ValueError("reserved_ip_ranges needs a network")
        return self

    @model_validator(mode="after")
    def _served_by_its_image(self) -> "VertexProfile":
        _refuse_unused_image(self.serving_image, self.server, "prebuilt")
        return self

    @model_validator(mode="after")
    def _in_one_region(self) -> "VertexProfile":
        for key in ("encryption_key", "network_attachment"):
            resource = getattr(self, key)
            if resource and resource.split("/")[3] != self.location:
                raise PydanticCustomError("region", "must be in {location}", {"key": key, "location": self.location})
        return self


Profile = LocalProfile | KubeflowProfile | VertexProfile


def _with_local(targets: dict[str, Profile]) -> dict[str, Profile]:
    if not isinstance(targets.get("local", LocalProfile()), LocalProfile):
        raise PydanticCustomError("not_local", "is this machine; give another target another name", {"key": "local"})
    return {"local": LocalProfile(), **targets}


class ProfileFile(Table):
    """The whole file."""

    targets: Annotated[
        dict[Name, Annotated[Profile, Field(discriminator="kind")]], pydantic.AfterValidator(_with_local)
    ] = Field(default={}, validate_default=True, description="The places where pipelines run, by name.")
    resources: dict[Name, Resources] = Field(default={}, description="What steps get, by the name that pipelines use.")


def image_references(profile: Profile) -> dict[str, str]:
    """Each reference that components are written with, and the one that a target has in its place."""
    there = {images.image(name): image_reference(profile, name) for name in Images.model_fields}
    return {**there, images.TENSORFLOW_GPU: image_reference(profile, "tensorflow", images.GPU)}


def image_reference(profile: Profile, image: str, variant: str = "") -> str:
    """The reference of an image of this collection on a target.

    Args:
        profile: The target.
        image: The image's name, such as "tensorflow".
        variant: What is appended to the version of this package; a version that the profile gives stays as it is.

    Raises:
        UserError: there is no such image.
    """
    if image not in Images.model_fields:
        raise UserError(f"there is no image {image}; this collection has: {', '.join(Images.model_fields)}")
    if isinstance(profile, LocalProfile):
        return images.image(image, variant)
    version = getattr(profile.images, image) or __version__ + variant
    return f"{profile.registry}/{image}{'@' if version.startswith('sha256:') else ':'}{version}"
