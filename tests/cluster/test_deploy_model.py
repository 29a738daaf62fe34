"""deploy_model with KServe on a real API server, as an account that has the deployer's Role and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client import ApiException

from kfp_hybrid.components.deployment.deploy_model.deploy import run_action
from kfp_hybrid.components.deployment.deploy_model.request import Request, Result
from kfp_hybrid.step import StepError

ISVC = ("serving.kserve.io", "v1beta1")


class Pushed:
    """What push_model puts out."""

    def __init__(self, version: int, digest: str = "") -> None:
        self.uri = "minio://mlpipeline/v2/artifacts/push-model/pushed"
        self.path = None
        self.metadata = {
            "destination": "minio://models/flights",
            "version": version,
            "digest": digest or f"sha256:{version}",
            "pushed": True,
            "outcome": "published",
            "saved_model": True,
            "edge_bundle": True,
        }


@pytest.fixture
def settings(server_image: str) -> dict[str, Any]:
    """This collection's server, with the tiny image in the place of its own."""
    small = {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}
    return {"server": "kfp-hybrid", "image": server_image, "resources": small}


@pytest.fixture
def act(
    namespace: str, deployer: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, impatient: None
) -> Callable[..., Result]:
    """Runs an action as the deployer; without a namespace, so that the one of the account's own is taken."""
    monkeypatch.setenv("KUBECONFIG", deployer)
    fixed = {"service": "flights", "timeout_seconds": 300, **settings}

    def run(action: str = "deploy", model: Pushed | None = None, **inputs: Any) -> Result:
        return run_action(Request(**{**fixed, "action": action, **inputs}), model)

    return run


@pytest.fixture
def live(admin: client.ApiClient, namespace: str) -> Callable[[], dict[str, Any]]:
    """Reads the InferenceService as it is now."""
    custom = client.CustomObjectsApi(admin)
    return lambda: custom.get_namespaced_custom_object(*ISVC, namespace, "inferenceservices", "flights")


@pytest.fixture
def change(admin: client.ApiClient, namespace: str, kserve_kinds: Any) -> Callable[..., None]:
    """Changes fields of the predictor, as somebody else."""

    def patch(predictor: dict[str, Any], manager: str) -> None:
        body = {"spec": {"predictor": predictor}}
        kserve_kinds.merge_patch(admin, kserve_kinds.ISVC, namespace, "flights", body, manager)

    return patch


def traffic(item: dict[str, Any]) -> dict[str, int]:
    targets = item["status"]["components"]["predictor"]["traffic"]
    return {target["revisionName"]: target["percent"] for target in targets if target["percent"]}


# A service and its first model


def test_the_first_model_of_a_service_gets_all_requests_also_as_a_canary(act, kserve, live, namespace):
    kserve()
    result = act(model=Pushed(7), canary_percent=10, run="run-1")
    assert result.revision == "flights-predictor-00001"
    assert result.url == f"http://flights.{namespace}.example.com"
    assert result.changed
    assert traffic(live()) == {"flights-predictor-00001": 100}


def test_a_service_says_which_model_it_serves_and_where_that_is_from(act, kserve, live):
    kserve()
    act(model=Pushed(7), run="run-1")
    metadata = live()["metadata"]
    assert metadata["labels"]["app.kubernetes.io/managed-by"] == "kfp-hybrid"
    ours = {name.partition("/")[2]: value for name, value in metadata["annotations"].items() if "model" in name}
    assert ours == {
        "model-uri": "minio://models/flights/7",
        "model-version": "7",
        "model-digest": "sha256:7",
    }
    assert metadata["annotations"]["kfp-hybrid/run"] == "run-1"


def test_tensorflow_serving_is_pinned_to_the_version_and_finds_the_storage_secret(act, kserve, live, admin, namespace):
    core = client.CoreV1Api(admin)
    core.create_namespaced_secret(namespace, {"metadata": {"name": "store"}, "stringData": {"AWS_ACCESS_KEY_ID": "a"}})
    kserve()
    act(model=Pushed(7), server="tensorflow-serving", storage_secret="store")
    item = live()
    predictor = item["spec"]["predictor"]
    assert predictor["model"]["storageUri"] == "s3://models/flights/"
    pin = core.read_namespaced_config_map(predictor["volumes"][0]["configMap"]["name"], namespace)
    assert "versions: 7" in pin.data["models.config"]
    account = core.read_namespaced_service_account(predictor["serviceAccountName"], namespace)
    assert "store" in [secret.name for secret in account.secrets]
    assert account.automount_service_account_token is False
    for made in (pin, account):  # so that they are deleted together with the service
        assert [owner.uid for owner in made.metadata.owner_references] == [item["metadata"]["uid"]]


def test_the_server_that_was_tried_comes_with_the_model_and_goes_with_the_service(
    act, kserve, live, kserve_kinds, admin
):
    kserve()
    act(model=Pushed(7), server="auto")
    item = live()
    model = item["spec"]["predictor"]["model"]
    assert (model["modelFormat"], model["storageUri"]) == ({"name": "kfp-hybrid"}, "s3://models/flights/7/")
    group, version, plural = kserve_kinds.RUNTIME
    found = client.CustomObjectsApi(admin).get_namespaced_custom_object(
        group, version, item["metadata"]["namespace"], plural, model["runtime"]
    )
    assert "--engine=litert" in found["spec"]["containers"][0]["args"]
    assert [owner["uid"] for owner in found["metadata"]["ownerReferences"]] == [item["metadata"]["uid"]]


def test_deploying_the_same_model_again_changes_nothing(act, kserve, live):
    kserve()
    act(model=Pushed(7), run="run-1")
    before = live()["metadata"]["generation"], live()["metadata"]["annotations"]
    result = act(model=Pushed(7), run="run-2")
    assert not result.changed
    assert "nothing had to be changed" in result.summary
    assert (live()["metadata"]["generation"], live()["metadata"]["annotations"]) == before


def test_another_content_under_the_same_address_is_another_model(act, kserve):
    kserve()
    act(storage_uri="s3://models/flights/7")
    assert act(model=Pushed(7, digest="sha256:other")).revision == "flights-predictor-00002"


def test_the_status_of_the_model_before_is_not_taken_for_that_of_the_new_one(act, kserve):
    kserve(lag=1)  # five looks long
    act(model=Pushed(1))
    assert act(model=Pushed(2)).revision == "flights-predictor-00002"


# Canary, promotion, rollback


def test_a_canary_gets_its_share_then_more_then_everything(act, kserve, live):
    controller = kserve()
    act(model=Pushed(1))
    result = act(model=Pushed(2), canary_percent=10)
    assert traffic(live()) == {"flights-predictor-00001": 90, "flights-predictor-00002": 10}
    assert result.revision == "flights-predictor-00002"
    assert act(model=Pushed(2), canary_percent=50).changed
    assert traffic(live()) == {"flights-predictor-00001": 50, "flights-predictor-00002": 50}
    assert act("promote").revision == "flights-predictor-00002"
    assert traffic(live()) == {"flights-predictor-00002": 100}
    assert not act("promote").changed
    assert len([split for split in controller.splits if "flights-predictor-00003" in split]) == 0


def test_a_canary_is_rolled_back_at_once_and_only_once(act, kserve, live):
    kserve()
    act(model=Pushed(1))
    act(model=Pushed(2), canary_percent=10)
    result = act("rollback")
    assert (result.revision, result.storage_uri) == ("flights-predictor-00001", "minio://models/flights/1")
    assert traffic(live()) == {"flights-predictor-00001": 100}
    again = act("rollback")
    assert (again.changed, again.revision) == (False, "flights-predictor-00001")
    with pytest.raises(StepError, match="was rolled back; deploy a model instead of promoting it"):
        act("promote")


def test_a_model_that_had_all_requests_is_rolled_back_to_the_one_before(act, kserve, live):
    kserve()
    act(model=Pushed(1))
    act(model=Pushed(2))
    assert act("rollback").revision == "flights-predictor-00001"
    assert traffic(live()) == {"flights-predictor-00001": 100}


def test_the_only_model_of_a_service_cannot_be_rolled_back(act, kserve):
    kserve()
    act(model=Pushed(1))
    with pytest.raises(
        StepError, match=r"InferenceService .*/flights has no model before this one; deploy another one"
    ):
        act("rollback")


@pytest.mark.parametrize("canary_percent", [20, 100])
def test_a_withdrawn_model_gets_no_requests_while_the_next_one_starts(act, kserve, live, canary_percent):
    controller = kserve()
    act(model=Pushed(1))
    act(model=Pushed(2), canary_percent=10)
    act("rollback")
    withdrawn = len(controller.splits)
    act(model=Pushed(3), canary_percent=canary_percent)
    assert all("flights-predictor-00002" not in split for split in controller.splits[withdrawn:])
    assert traffic(live())["flights-predictor-00003"] == canary_percent


def test_a_service_moves_from_tensorflow_serving_to_the_server_that_was_tried_by_a_canary_and_back(act, kserve, live):
    """Each revision has its own server, so that the one before answers until the next has everything."""
    kserve()
    act(model=Pushed(1), server="tensorflow-serving")
    act(model=Pushed(1), server="auto", canary_percent=10)
    assert traffic(live()) == {"flights-predictor-00001": 90, "flights-predictor-00002": 10}
    predictor = live()["spec"]["predictor"]
    assert not {"args", "volumeMounts"} & set(predictor["model"])  # of TensorFlow Serving, which ours would not know
    assert "volumes" not in predictor
    assert act("rollback").revision == "flights-predictor-00001"
    act(model=Pushed(1), server="auto", canary_percent=10)
    assert act("promote").changed
    assert traffic(live()) == {live()["status"]["components"]["predictor"]["latestCreatedRevision"]: 100}


def test_there_is_nothing_to_promote_or_roll_back_without_a_service(act, kserve_kinds):
    for action in ("promote", "rollback"):
        with pytest.raises(StepError, match=r"there is no InferenceService .*/flights; deploy a model first"):
            act(action)


# KServe without Knative

RAW = {"serving.kserve.io/deploymentMode": "RawDeployment"}


def test_without_knative_a_model_is_replaced_and_rolled_back_but_has_no_canary(act, kserve, live, caplog):
    kserve()
    first = act(model=Pushed(1), annotations=RAW)
    second = act(model=Pushed(2), annotations=RAW)
    assert second.revision != first.revision
    with pytest.raises(StepError, match="runs without Knative, where KServe cannot split requests; deploy with canary"):
        act(model=Pushed(3), annotations=RAW, canary_percent=10)
    assert not act("promote").changed
    result = act("rollback")
    assert (result.revision, result.storage_uri) == (first.revision, "minio://models/flights/1")
    assert "without Knative" in caplog.text or result.changed
    assert not act("rollback").changed


def test_without_knative_a_service_moves_to_the_server_that_was_tried_and_back(act, kserve, live):
    kserve()
    first = act(model=Pushed(1), server="tensorflow-serving", annotations=RAW)
    act(model=Pushed(2), server="auto", annotations=RAW)
    assert live()["spec"]["predictor"]["model"]["modelFormat"]["name"] == "kfp-hybrid"
    assert act("rollback").revision == first.revision
    assert live()["spec"]["predictor"]["model"]["modelFormat"]["name"] == "tensorflow"
    assert "runtime" not in live()["spec"]["predictor"]["model"]


def test_without_knative_a_model_that_never_loaded_is_not_what_a_rollback_goes_back_to(act, kserve):
    kserve()
    act(model=Pushed(1), annotations=RAW)
    with pytest.raises(StepError, match="did not get ready"):
        act(storage_uri="s3://missing/2", annotations=RAW, timeout_seconds=2)
    with pytest.raises(StepError, match="did not get ready"):
        act(storage_uri="s3://missing/3", annotations=RAW, timeout_seconds=2)
    assert act("rollback").storage_uri == "minio://models/flights/1"


# Models that do not get ready


@pytest.mark.parametrize(
    ("uri", "container", "log"),
    [
        ("s3://missing/flights/2", "storage-initializer", "RuntimeError: Failed to fetch model"),
        ("s3://broken/flights/2", "kserve-container", "cannot parse /mnt/models/saved_model.pb"),
    ],
)
def test_a_model_that_fails_to_load_is_reported_with_the_end_of_the_log(act, kserve, caplog, uri, container, log):
    kserve()
    act(model=Pushed(1))
    with pytest.raises(StepError) as caught:
        act(storage_uri=uri)
    message = str(caught.value)
    assert "\n" not in message
    assert f"container {container} of pod flights-predictor-00002-deployment-0 keeps ending" in message
    assert "requests go to flights-predictor-00001 (100 %)" in message
    assert log in caplog.text
    assert act("rollback").revision == "flights-predictor-00001"


def test_a_model_that_is_stuck_is_given_up_with_the_newest_warnings(act, kserve, caplog):
    kserve()
    with pytest.raises(StepError, match=r"InferenceService .*/flights did not get ready: not within 20 s"):
        act(storage_uri="s3://unschedulable/flights/1", timeout_seconds=20)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert any("FailedScheduling (Pod flights-predictor-00001-deployment-0" in line for line in errors)


def test_what_kserve_refuses_is_reported_with_its_words(act, kserve):
    kserve()
    with pytest.raises(StepError, match=r"KServe refuses it.*RuntimeNotRecognized: Specified runtime does not exist"):
        act(storage_uri="s3://models/1", runtime="no-such-runtime")


# Being stopped


def test_a_step_that_is_stopped_leaves_the_service_as_asked_for_and_says_so(
    act, kserve, live, process, stopped_at, namespace, settings
):
    controller = kserve()
    act(model=Pushed(1))
    inputs = {**settings, "storage_uri": "s3://unschedulable/flights/2", "canary_percent": 25}
    rest = stopped_at("not scheduled", process(**inputs))
    expected = f"stopped: KServe goes on giving the newest model of InferenceService {namespace}/flights 25 % of the"
    assert expected in rest
    assert "flights-predictor-00001" in rest
    assert "Traceback" not in rest
    assert live()["spec"]["predictor"]["canaryTrafficPercent"] == 25
    assert controller.splits[-1] == {"flights-predictor-00001": 100}
    assert act("rollback").revision == "flights-predictor-00001"


def test_a_step_that_was_stopped_is_finished_by_running_it_again(
    act, kserve, kserve_kinds, process, stopped_at, settings
):
    stopped_at("asked KServe for", process(**settings, storage_uri="s3://models/flights/1"))  # nobody answers yet
    kserve()
    result = act(storage_uri="s3://models/flights/1")
    assert (result.changed, result.revision) == (False, "flights-predictor-00001")


# Others who write to the same objects, and missing rights


def test_what_another_manager_has_set_is_left_alone_until_force_is_given(act, kserve, live, change):
    kserve()
    act(model=Pushed(1))
    change({"minReplicas": 3}, "the-platform-team")
    with pytest.raises(StepError, match=r"the-platform-team set spec\.predictor\.minReplicas of inferenceservices"):
        act(model=Pushed(2))
    assert live()["spec"]["predictor"]["minReplicas"] == 3
    act(model=Pushed(2), force=True)
    assert live()["spec"]["predictor"]["minReplicas"] == 1


def test_fields_of_others_stay(act, kserve, live, change):
    kserve()
    act(model=Pushed(1))
    change({"logger": {"mode": "all"}}, "the-platform-team")
    act(model=Pushed(2))
    assert live()["spec"]["predictor"]["logger"] == {"mode": "all"}


def test_an_account_without_the_role_is_told_which_right_it_lacks(account, kserve_kinds, namespace, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", account("nobody"))
    request = Request(service="flights", server="kfp-hybrid", storage_uri="s3://models/1")
    with pytest.raises(StepError) as caught:
        run_action(request)
    assert str(caught.value) == (
        f"system:serviceaccount:{namespace}:nobody may not get inferenceservices.serving.kserve.io in namespace "
        f"{namespace}; bind the Role of manifests/base/deployer-role.yaml to it there"
    )


def test_the_role_does_not_let_the_deployer_read_secrets(deployer, namespace, admin):
    from kubernetes import config

    core = client.CoreV1Api(config.new_client_from_config(deployer))
    for forbidden in (core.list_namespaced_secret, core.list_namespaced_config_map):
        with pytest.raises(ApiException) as caught:
            forbidden(namespace)
        assert caught.value.status == 403


def test_a_namespace_that_does_not_exist_is_named(admin_kubeconfig, kserve_kinds, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", admin_kubeconfig)
    with pytest.raises(StepError, match="there is no namespace no-such-place; create it, or give another"):
        inputs = {"server": "kfp-hybrid", "namespace": "no-such-place", "storage_uri": "s3://models/1"}
        run_action(Request(service="flights", **inputs))
