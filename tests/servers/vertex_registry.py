"""The models and endpoints of Vertex AI, held as its own messages.

What the server is sent must be what the real messages can hold, to the last field, and what the documentation demands:
shares that add up to 100, of models that are there, and an etag that is still valid. Pages of lists have one item.
"""

import re
from datetime import datetime, timedelta, timezone

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

PARENT = "projects/ml-production/locations/europe-west4"
START = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)
FILTER = re.compile(r'(display_name|labels\.kfp_hybrid_digest)="([^"]*)"')


class Refusal(Exception):
    def __init__(self, code, status, message):
        super().__init__(message)
        self.answer = code, {"error": {"code": code, "status": status, "message": message}}


class FakeRegistry:
    """The endpoints and models of one project in one region."""

    def __init__(self):
        self.endpoints = {}
        self.models = []
        self.operations = {}
        self.before_patch = None
        """Called once before the next change, as somebody else who changes things."""

    def endpoint(self, display_name="flights", shares=(), name="7", labels=None):
        """Add an endpoint; `shares` are those of its models, the oldest first, whose ids are 11, 12, ..."""
        made = types.Endpoint(name=f"{PARENT}/endpoints/{name}", display_name=display_name, etag="e1", labels=labels)
        for number, share in enumerate(shares, 1):
            made.deployed_models.append(types.DeployedModel(
                id=f"1{number}", model=f"{PARENT}/models/55", model_version_id=str(number),
                create_time=START + timedelta(seconds=number / 2),
            ))  # fmt: skip
            if share:
                made.traffic_split[f"1{number}"] = share
        self.endpoints[made.name] = made
        return made

    def model(self, *digests, display_name="flights", name="55", server=""):
        """Add a model with a version for each digest, all in the container that the label `server` stands for."""
        for version, digest in enumerate(digests, 1):
            self.models.append(types.Model(
                name=f"{PARENT}/models/{name}", display_name=display_name, version_id=str(version),
                labels={"kfp_hybrid_digest": digest[:63], "kfp_hybrid_server": server} if digest else {},
            ))  # fmt: skip

    def __call__(self, request):
        assert request.headers["Authorization"] == "Bearer a-token"
        path = request.path.removeprefix("/v1/")
        try:
            if not path.startswith(PARENT):
                raise Refusal(403, "PERMISSION_DENIED", "Permission denied.")
            if request.is_("GET", f"/v1/{PARENT}/endpoints"):
                return self._page("endpoints", self.endpoints.values(), request.query, types.ListEndpointsRequest)
            if request.is_("GET", f"/v1/{PARENT}/models"):
                newest = {model.name: model for model in self.models}
                return self._page("models", newest.values(), request.query, types.ListModelsRequest)
            if request.is_("GET", f"/v1/{PARENT}/models/*:listVersions"):
                name = path.removesuffix(":listVersions")
                versions = [model for model in self.models if model.name == name]
                return self._page("models", versions, request.query, types.ListModelVersionsRequest)
            if request.is_("GET", f"/v1/{PARENT}/operations/*"):
                return 200, self.operations[path]
            if request.is_("POST", f"/v1/{PARENT}/models:upload"):
                return 200, self._upload(request)
            if request.is_("POST", f"/v1/{PARENT}/endpoints"):
                return 200, self._create(request)
            if request.is_("POST", f"/v1/{PARENT}/endpoints/*:deployModel"):
                return 200, self._deploy(path.removesuffix(":deployModel"), request)
            if request.is_("PATCH", f"/v1/{PARENT}/endpoints/*"):
                return 200, self._patch(path, request)
            if request.is_("POST", f"/v1/{PARENT}/endpoints/*:undeployModel"):
                return 200, self._undeploy(path.removesuffix(":undeployModel"), request)
        except Refusal as refusal:
            return refusal.answer
        return 404, "<html>no such page</html>"

    def _page(self, kind, items, query, message):
        asked = message()
        json_format.ParseDict(query, asked._pb)
        if asked.filter:
            field, value = FILTER.fullmatch(asked.filter).groups()
            key = field.partition(".")[2]
            items = [item for item in items if (item.labels.get(key) if key else item.display_name) == value]
        items = list(items)
        start = int(asked.page_token or 0)
        answer = {kind: [json_format.MessageToDict(item._pb) for item in items[start : start + 1]]}
        return 200, answer | ({"nextPageToken": str(start + 1)} if start + 1 < len(items) else {})

    def _patch(self, name, request):
        if self.before_patch:
            change, self.before_patch = self.before_patch, None
            change()
        endpoint = self.endpoints[name]
        sent = _parsed(types.Endpoint, request)
        fields = request.query["updateMask"].split(",")
        assert set(request.json()) == {*fields, "etag"}
        if sent.etag != endpoint.etag:
            raise Refusal(409, "ABORTED", "The etag is not that of the resource.")
        if sum(sent.traffic_split.values()) != 100 or not set(sent.traffic_split) <= ids(endpoint):
            raise Refusal(400, "INVALID_ARGUMENT", "Invalid traffic split.")
        assert all(re.fullmatch("[-_a-z0-9]{0,63}", value) for value in sent.labels.values())
        endpoint.traffic_split, endpoint.labels = dict(sent.traffic_split), dict(sent.labels)
        endpoint.etag += "'"
        return json_format.MessageToDict(endpoint._pb)

    def _upload(self, request):
        sent = _parsed(types.UploadModelRequest, request)
        model, versions = sent.model, []
        assert model.artifact_uri.startswith("gs://") and model.container_spec.image_uri and model.display_name
        if sent.parent_model:
            versions = [each for each in self.models if each.name == sent.parent_model]
            if not versions:
                raise Refusal(404, "NOT_FOUND", "The parent model is not there.")
        model.name = sent.parent_model or f"{PARENT}/models/{len(self.models) + 100}"
        model.version_id = str(len(versions) + 1)
        self.models.append(model)
        return self._operation({"model": model.name, "modelVersionId": model.version_id})

    def _create(self, request):
        endpoint = _parsed(types.Endpoint, request)
        endpoint.name, endpoint.etag = f"{PARENT}/endpoints/{len(self.endpoints) + 200}", "e1"
        self.endpoints[endpoint.name] = endpoint
        return self._operation({"name": endpoint.name})

    def _deploy(self, name, request):
        sent = _parsed(types.DeployModelRequest, request)
        endpoint, deployed = self.endpoints[name], sent.deployed_model
        machines = deployed.dedicated_resources
        assert machines.machine_spec.machine_type and 1 <= machines.min_replica_count <= machines.max_replica_count
        deployed.id = str(len(endpoint.deployed_models) + 300)
        deployed.create_time = START + timedelta(hours=len(endpoint.deployed_models))
        deployed.model, _, deployed.model_version_id = deployed.model.partition("@")
        if not any((each.name, each.version_id) == (deployed.model, deployed.model_version_id) for each in self.models):
            raise Refusal(404, "NOT_FOUND", "The model is not there.")
        split = {deployed.id if key == "0" else key: share for key, share in sent.traffic_split.items()}
        endpoint.deployed_models.append(deployed)
        if sum(split.values()) != 100 or not set(split) <= ids(endpoint):
            raise Refusal(400, "INVALID_ARGUMENT", "Invalid traffic split.")
        endpoint.traffic_split = split
        return self._operation({"deployedModel": {"id": deployed.id}})

    def _operation(self, response):
        """A long-running operation, which is done when it is looked at."""
        name = f"{PARENT}/operations/{len(self.operations)}"
        self.operations[name] = {"name": name, "done": True, "response": response}
        return {"name": name}

    def _undeploy(self, name, request):
        sent = _parsed(types.UndeployModelRequest, request)
        endpoint = self.endpoints[name]
        if sent.deployed_model_id not in ids(endpoint):
            raise Refusal(404, "NOT_FOUND", "The deployed model is not there.")
        if endpoint.traffic_split.get(sent.deployed_model_id):
            raise Refusal(400, "FAILED_PRECONDITION", "The deployed model has traffic.")
        endpoint.deployed_models = [each for each in endpoint.deployed_models if each.id != sent.deployed_model_id]
        return self._operation({})


def _parsed(message, request):
    """The body as the message; what it cannot hold is an error."""
    sent = message()
    json_format.ParseDict(request.json(), sent._pb)
    return sent


def ids(endpoint):
    return {model.id for model in endpoint.deployed_models}
