"""The objects that KServe is given, and what it says of them."""

import json
from dataclasses import dataclass
from typing import Any

from kfp_hybrid.components.deployment.deploy_model.location import ModelLocation
from kfp_hybrid.components.deployment.deploy_model.names import (
    APPLIED,
    LABELS,
    MODEL_DIGEST,
    MODEL_URI,
    MODEL_VERSION,
    PREVIOUS,
    REVISION,
    RUN,
    annotations_of,
    fingerprint,
)
from kfp_hybrid.components.deployment.deploy_model.request import Request
from kfp_hybrid.components.deployment.deploy_model.runtime import MODELS, runtime_name
from kfp_hybrid.components.deployment.deploy_model.servers import TENSORFLOW_SERVING
from kfp_hybrid.step import StepError

PINNED = "/etc/kfp-hybrid"
PIN_FILE = "models.config"
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
KNATIVE_MODES, RAW_MODES = ("Knative", "Serverless"), ("Standard", "RawDeployment")


@dataclass(frozen=True)
class Record:
    """What was asked of KServe for one model; kept as an annotation, to be asked for again.

    Attributes:
        annotations: Of the InferenceService.
        predictor: Of its specification, without the share of requests.
    """

    annotations: dict[str, str]
    predictor: dict[str, Any]

    @property
    def revision(self) -> str:
        """Stands for the model and its settings."""
        return self.predictor["annotations"][REVISION]

    def to_json(self) -> str:
        """The record as text."""
        return json.dumps({"annotations": self.annotations, "predictor": self.predictor}, sort_keys=True)


def read_record(item: dict[str, Any] | None, annotation: str) -> Record | None:
    """The record that an object carries in an annotation, if any."""
    text = annotations_of(item).get(annotation)
    return Record(**json.loads(text)) if text else None


def make_record(request: Request, location: ModelLocation) -> Record:
    """What to ask KServe for.

    Raises:
        StepError: TensorFlow Serving cannot find the model there.
    """
    if uses_tensorflow_serving(request) and not location.version and not location.holds_versions:
        raise StepError(
            f"{location.uri} has no version number as its last part, by which TensorFlow Serving finds a model; "
            "publish it with push_model, and deploy what that puts out"
        )
    place = location.in_kserve_terms()
    model: dict[str, Any] = {"modelFormat": {"name": request.format}, "storageUri": storage_uri(request, place)}
    predictor: dict[str, Any] = {"minReplicas": request.min_replicas, "model": model}
    if runtime := runtime_name(request):
        model["runtime"] = runtime
    if request.resources:
        model["resources"] = request.resources
    if request.max_replicas:
        predictor["maxReplicas"] = request.max_replicas
    if account := storage_account_name(request) or request.service_account:
        predictor["serviceAccountName"] = account
    if request.node_selector:
        predictor["nodeSelector"] = request.node_selector
    if request.tolerations:
        predictor["tolerations"] = request.tolerations
    if name := pin_name(request, place):
        model["args"] = [f"--model_config_file={PINNED}/{PIN_FILE}"]
        model["volumeMounts"] = [{"name": "model-version", "mountPath": PINNED, "readOnly": True}]
        predictor["volumes"] = [{"name": "model-version", "configMap": {"name": name}}]
    predictor |= request.pull_secret_references
    revision = fingerprint(predictor, request.annotations, location.uri, location.digest)
    return Record(
        annotations={
            **request.annotations,
            MODEL_URI: location.uri,
            MODEL_VERSION: str(location.version),
            MODEL_DIGEST: location.digest,
            RUN: request.run,
        },
        predictor={"annotations": {REVISION: revision}, **predictor},
    )


def inference_service(service: str, record: Record, previous: Record | None, share: int | None) -> dict[str, Any]:
    """The InferenceService.

    Args:
        service: Its name.
        record: What to serve.
        previous: What was served before.
        share: The percentage of requests for it, None for all.
    """
    kept = {APPLIED: record.to_json(), **({PREVIOUS: previous.to_json()} if previous else {})}
    canary = {} if share is None else {"canaryTrafficPercent": share}
    return {
        "metadata": {"name": service, "labels": LABELS, "annotations": {**record.annotations, **kept}},
        "spec": {"predictor": {**record.predictor, **canary}},
    }


def uses_tensorflow_serving(request: Request) -> bool:
    """Whether KServe will load the model with TensorFlow Serving, which wants a folder of versions."""
    return request.format == TENSORFLOW_SERVING.model_format and (
        not request.runtime or "tensorflow-serving" in request.runtime
    )


def storage_uri(request: Request, location: ModelLocation) -> str:
    """The URI whose content KServe is to put below /mnt/models.

    TensorFlow Serving gets the folder of versions, every other server the model itself. The slash at the end keeps
    KServe, which lists S3 stores by prefix, from taking `models/70` for a part of `models/7`.
    """
    if location.scheme in ("http", "https"):
        return location.uri
    folder = location.folder if uses_tensorflow_serving(request) else location.uri
    return folder if location.scheme == "pvc" else f"{folder}/"


def pin_name(request: Request, location: ModelLocation) -> str:
    """The name of the ConfigMap that makes TensorFlow Serving load one version; "" where there is nothing to choose."""
    pins = uses_tensorflow_serving(request) and location.version
    return f"{request.service}-version-{location.version}" if pins else ""


def pin(request: Request, location: ModelLocation) -> dict[str, Any]:
    """That ConfigMap; without it TensorFlow Serving would load the highest version there is when a pod starts."""
    text = (
        f'model_config_list {{\n  config {{\n    name: "{request.service}"\n    base_path: "{MODELS}"\n'
        '    model_platform: "tensorflow"\n'
        f"    model_version_policy {{ specific {{ versions: {location.version} }} }}\n  }}\n}}\n"
    )
    metadata = {"name": pin_name(request, location), "labels": LABELS}
    return {"metadata": metadata, "data": {PIN_FILE: text}}


def storage_account_name(request: Request) -> str:
    """The service account through which KServe finds the storage secret; "" without a secret."""
    return f"{request.service}-storage" if request.storage_secret else ""


def storage_account(request: Request) -> dict[str, Any]:
    """That service account; its pods get no access to the Kubernetes API."""
    return {
        "metadata": {"name": storage_account_name(request), "labels": LABELS},
        "secrets": [{"name": request.storage_secret}],
        "automountServiceAccountToken": False,
    }


def owned_by(item: dict[str, Any], owner: dict[str, Any]) -> dict[str, Any]:
    """`item`, to be deleted together with the InferenceService `owner`."""
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return {**item, "metadata": {**item["metadata"], "ownerReferences": [reference]}}


@dataclass(frozen=True)
class Status:
    """What KServe says of an InferenceService."""

    item: dict[str, Any]

    @property
    def _status(self) -> dict[str, Any]:
        return self.item.get("status") or {}

    @property
    def predictor(self) -> dict[str, Any]:
        """What it says of the predictor's revisions; empty without Knative."""
        return (self._status.get("components") or {}).get("predictor") or {}

    @property
    def url(self) -> str:
        """The address; "" before there is one."""
        return self._status.get("url", "")

    @property
    def is_knative(self) -> bool | None:
        """Whether Knative runs it and can split requests; None before KServe has decided."""
        mode = self._status.get("deploymentMode") or annotations_of(self.item).get(DEPLOYMENT_MODE)
        if mode in KNATIVE_MODES or self.predictor.get("latestCreatedRevision"):
            return True
        return False if mode in RAW_MODES else None

    @property
    def share(self) -> int | None:
        """The percentage of requests that was asked for the newest model; None for all."""
        return self.item["spec"]["predictor"].get("canaryTrafficPercent")

    @property
    def newest(self) -> str:
        """The newest revision, ready or not."""
        return self.predictor.get("latestCreatedRevision", "")

    @property
    def newest_is_ready(self) -> bool:
        """Whether the newest revision has become ready."""
        return bool(self.newest) and self.predictor.get("latestReadyRevision") == self.newest

    def traffic(self) -> dict[str, int]:
        """Revision -> percentage of the requests that it gets."""
        shares: dict[str, int] = {}
        for target in self.predictor.get("traffic") or []:
            name = target.get("revisionName", "")
            shares[name] = shares.get(name, 0) + (target.get("percent") or 0)
        return {name: percent for name, percent in shares.items() if percent}

    def withdrawn_to(self) -> str:
        """The revision that has taken all requests from the newest one; "" while there is none."""
        traffic = self.traffic()
        return next((name for name, percent in traffic.items() if percent == 100 and name != self.newest), "")

    @property
    def has_earlier_revision(self) -> bool:
        """Whether there is a revision to roll back to, or that was rolled back to."""
        rolled_out = self.predictor.get("latestRolledoutRevision", "")
        return rolled_out not in ("", self.newest) or bool(self.predictor.get("previousRolledoutRevision"))

    def condition(self, kind: str) -> dict[str, Any]:
        """A condition; empty before there is one."""
        conditions = self._status.get("conditions") or []
        return next((each for each in conditions if each["type"] == kind), {})

    def conditions(self) -> list[str]:
        """Those that do not hold, in words."""
        lines = []
        for each in self._status.get("conditions") or []:
            if each["status"] != "True" and each["type"] not in ("Ready", "Stopped"):
                reason = ": ".join(filter(None, (each.get("reason"), each.get("message"))))
                lines.append(f"{each['type']} is {each['status']}{': ' if reason else ''}{' '.join(reason.split())}")
        return lines

    def failure(self) -> str:
        """Why KServe cannot load the model, in words; "" when it does not say so."""
        model = self._status.get("modelStatus") or {}
        if model.get("transitionStatus") not in ("InvalidSpec", "BlockedByFailedLoad"):
            return ""
        info = model.get("lastFailureInfo") or {}
        message = " ".join(str(info.get("message") or "").split())[:300]
        return ": ".join(filter(None, (info.get("reason") or model["transitionStatus"], message)))

    @property
    def spec_is_invalid(self) -> bool:
        """Whether KServe refuses the specification, which waiting does not mend."""
        return (self._status.get("modelStatus") or {}).get("transitionStatus") == "InvalidSpec"
