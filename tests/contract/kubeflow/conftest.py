"""An installation of Kubeflow Pipelines on this machine: the part of its API that the target uses.

What it receives and what it answers is held against the models of kfp_server_api and against the protobufs of the
pipeline format; it refuses unknown fields, wrong enum values and unknown query parameters. Errors are worded like those
of the API server.
"""

import datetime
import itertools
import json
import math
import re
from email.parser import BytesParser

import kfp_server_api
import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid.package import Package
from kfp_hybrid.profiles import KubeflowProfile
from kfp_hybrid.profiles.models import Resources
from kfp_hybrid.targets.kubeflow import KubeflowTarget
from kfp_hybrid.targets.kubeflow import client as client_module

API = "/apis/v2beta1"
NEVER = "1970-01-01T00:00:00Z"
LISTS = {"page_token", "page_size", "sort_by", "filter", "namespace", "experiment_id"}
LOGIN_PAGE = "<!doctype html><html><body><form action='/dex/auth'>Log in to Your Account</form></body></html>"


def error(status, code, message):
    """An error as the gRPC gateway writes it."""
    return status, {"error": message, "code": code, "message": message, "details": []}


class Refused(Exception):
    """A request that the API server does not understand."""


class Installation:
    """The state of an installation, and its answers."""

    def __init__(self):
        self.token = None
        self.cookie = None
        self.namespaces = {""}
        self.version = "2.17.0"
        self.experiments, self.runs, self.pipelines, self.versions, self.schedules = {}, {}, {}, {}, {}
        self.logs = {}
        self.ids = itertools.count(1)
        self.served = None

    @property
    def url(self):
        return self.served.url

    def fail(self, pattern, **how):
        self.served.fail(pattern, **how)

    def sent(self, pattern):
        return self.served.sent(pattern)

    def __call__(self, request):
        for name in self.namespaces_named(request):
            if name not in self.namespaces:
                return error(403, 7, f"User 'anna@example.com' is not authorized in namespace {name}")
        if request.path == f"{API}/healthz":
            return 200, {"tag_name": self.version, "commit_sha": "c0ffee", "multi_user": "" not in self.namespaces}
        if self.token and request.headers["Authorization"] != f"Bearer {self.token}":
            return error(401, 16, "Unauthenticated: Request header error: there is no user identity header")
        if self.cookie and request.headers["Cookie"] != self.cookie:
            return 302, "", {"Location": "/dex/auth?client_id=oidc-authservice"}
        try:
            return self.route(request)
        except Refused as refusal:
            return error(400, 3, str(refusal))

    def namespaces_named(self, request):
        if request.method == "GET":
            names = [request.query.get("namespace")]
        else:
            names = [request.json().get("namespace")] if request.body[:1] == b"{" else [request.query.get("namespace")]
        return [name for name in names if name is not None]

    def route(self, request):
        for method, pattern, answer in ROUTES:
            if request.method == method and (found := re.fullmatch(pattern, request.path)):
                return answer(self, request, *found.groups())
        return error(404, 5, "Not Found")

    # ---------------------------------------------------------------------------------------------- experiments

    def list_experiments(self, request):
        return self.page(request, "experiments", self.experiments, "V2beta1ListExperimentsResponse")

    def create_experiment(self, request):
        experiment = checked(request.json(), "V2beta1Experiment")
        if any(other["display_name"] == experiment["display_name"] for other in self.experiments.values()):
            return error(409, 6, f"The name {experiment['display_name']} already exists")
        return 200, self.keep(self.experiments, "experiment_id", experiment)

    # ----------------------------------------------------------------------------------------------------- runs

    def list_runs(self, request):
        without_details = {key: {**run, "run_details": None} for key, run in self.runs.items()}
        return self.page(request, "runs", without_details, "V2beta1ListRunsResponse")

    def create_run(self, request):
        run = checked(request.json(), "V2beta1Run")
        self.check_job(run)
        return 200, self.keep(self.runs, "run_id", {**run, "state": "PENDING", "finished_at": NEVER})

    def get_run(self, request, run_id):
        if run_id not in self.runs:
            return error(404, 5, f"Failed to get a run: ResourceNotFoundError: Run {run_id} not found.")
        return 200, checked(self.runs[run_id], "V2beta1Run")

    def terminate_run(self, request, run_id):
        if self.runs[run_id]["state"] not in ("PENDING", "RUNNING"):
            return error(400, 9, f"Failed to terminate run {run_id}: it is not running")
        self.runs[run_id]["state"] = "CANCELING"
        return 200, {}

    def check_job(self, job):
        """What runs and recurring runs have in common."""
        if job["experiment_id"] not in self.experiments:
            raise Refused(f"Invalid experiment id {job['experiment_id']}")
        source = job["pipeline_spec"]
        spec = parsed(source.get("pipeline_spec", source), pipeline_spec_pb2.PipelineSpec())
        check_platform(spec, source.get("platform_spec", {}))
        config = checked(job["runtime_config"], "V2beta1RuntimeConfig")
        for name in config.get("parameters", {}):
            if name not in spec.root.input_definitions.parameters:
                raise Refused(f"parameter {name} not found in the pipeline")
        root = config.get("pipeline_root") or "minio://default"
        if not root.startswith(("minio://", "s3://", "gs://")):
            raise Refused(f"invalid pipeline root {root}")

    # ------------------------------------------------------------------------------------------------ pipelines

    def list_pipelines(self, request):
        return self.page(request, "pipelines", self.pipelines, "V2beta1ListPipelinesResponse")

    def create_pipeline(self, request):
        pipeline = checked(request.json(), "V2beta1Pipeline")
        if any(other["display_name"] == pipeline["display_name"] for other in self.pipelines.values()):
            return error(409, 6, "Failed to create a new pipeline. The name already exist. Please specify a new name")
        return 200, self.keep(self.pipelines, "pipeline_id", pipeline)

    def list_versions(self, request, pipeline_id):
        own = {key: version for key, version in self.versions.items() if version["pipeline_id"] == pipeline_id}
        return self.page(request, "pipeline_versions", own, "V2beta1ListPipelineVersionsResponse")

    def get_version(self, request, pipeline_id, version_id):
        return 200, checked(self.versions[version_id], "V2beta1PipelineVersion")

    def upload_version(self, request):
        only(request.query, {"name", "pipelineid", "description"})
        if request.query["pipelineid"] not in self.pipelines:
            return 500, {"error_message": "Failed to create a pipeline version", "error_details": "no such pipeline"}
        content = uploaded(request)
        spec = parsed(content[0], pipeline_spec_pb2.PipelineSpec())
        check_platform(spec, content[1] if len(content) > 1 else {})
        version = {
            "pipeline_id": request.query["pipelineid"],
            "display_name": request.query["name"],
            # As the server gives it back: read, and written again.
            "pipeline_spec": {"pipeline_spec": json_format.MessageToDict(spec), "platform_spec": content[1]},
        }
        return 200, self.keep(self.versions, "pipeline_version_id", version)

    # ------------------------------------------------------------------------------------------------ schedules

    def list_schedules(self, request):
        return self.page(request, "recurringRuns", self.schedules, "V2beta1ListRecurringRunsResponse")

    def create_schedule(self, request):
        schedule = checked(request.json(), "V2beta1RecurringRun")
        self.check_job(schedule)
        if not 1 <= int(schedule["max_concurrency"]) <= 10:
            raise Refused("The max concurrency of the recurring run must be between 1 and 10")
        cron = schedule["trigger"]["cron_schedule"]["cron"]
        if len(cron.split()) != 6:  # five would be read as six without the last
            raise Refused(f"Schedule cron is not a supported format: {cron}")
        schedule["status"] = f"{schedule['mode']}D"
        return 200, self.keep(self.schedules, "recurring_run_id", schedule)

    def get_schedule(self, request, schedule_id):
        if schedule_id not in self.schedules:
            return error(404, 5, f"Failed to get a recurring run: Job {schedule_id} not found")
        return 200, self.schedules[schedule_id]

    def delete_schedule(self, request, schedule_id):
        if schedule_id not in self.schedules:
            return error(404, 5, f"Failed to delete a recurring run: Job {schedule_id} not found")
        del self.schedules[schedule_id]
        return 200, {}

    # ----------------------------------------------------------------------------------------------------- logs

    def pod_logs(self, request):
        only(request.query, {"podname", "runid", "podnamespace", "createdat"})
        if request.query["podname"] not in self.logs:
            return 500, "Could not get main container logs: Error: Unable to retrieve workflow status"
        return 200, self.logs[request.query["podname"]]

    # -------------------------------------------------------------------------------------------------- helpers

    def keep(self, things, id_field, thing):
        key = f"id-{next(self.ids)}"
        created = datetime.datetime(2026, 11, 21, tzinfo=datetime.timezone.utc) + datetime.timedelta(
            seconds=len(things)
        )
        things[key] = {**thing, id_field: key, "created_at": created.isoformat()}
        return things[key]

    def page(self, request, field, things, model):
        only(request.query, LISTS)
        found = list(things.values())
        if wanted := request.query.get("filter"):
            (predicate,) = checked(json.loads(wanted)["predicates"], "list[V2beta1Predicate]", wire=CAMEL)
            assert predicate["operation"] in (1, "EQUALS") and predicate["key"] == "display_name"
            found = [thing for thing in found if thing["display_name"] == predicate["stringValue"]]
        if request.query.get("experiment_id"):
            found = [thing for thing in found if thing["experiment_id"] == request.query["experiment_id"]]
        if request.query.get("sort_by") == "created_at desc":
            found.reverse()
        first = int(request.query.get("page_token") or 0)
        size = int(request.query.get("page_size") or 10)
        rest = len(found) > first + size
        answer = {field: found[first : first + size], "next_page_token": str(first + size) if rest else ""}
        return 200, checked(answer, model)


ROUTES = [(method, API + pattern, answer) for method, pattern, answer in (
    ("GET", "/experiments", Installation.list_experiments),
    ("POST", "/experiments", Installation.create_experiment),
    ("GET", "/runs", Installation.list_runs),
    ("POST", "/runs", Installation.create_run),
    ("GET", "/runs/([^/:]+)", Installation.get_run),
    ("POST", "/runs/([^/:]+):terminate", Installation.terminate_run),
    ("GET", "/pipelines", Installation.list_pipelines),
    ("POST", "/pipelines", Installation.create_pipeline),
    ("POST", "/pipelines/upload_version", Installation.upload_version),
    ("GET", "/pipelines/([^/]+)/versions", Installation.list_versions),
    ("GET", "/pipelines/([^/]+)/versions/([^/]+)", Installation.get_version),
    ("GET", "/recurringruns", Installation.list_schedules),
    ("POST", "/recurringruns", Installation.create_schedule),
    ("GET", "/recurringruns/([^/]+)", Installation.get_schedule),
    ("DELETE", "/recurringruns/([^/]+)", Installation.delete_schedule),
)] + [("GET", "/k8s/pod/logs", Installation.pod_logs)]  # fmt: skip


def CAMEL(name):
    """The API takes field names in either spelling, and kfp's filters have this one."""
    return re.sub("_(.)", lambda found: found[1].upper(), name)


def only(given, known):
    if unknown := set(given) - set(known):
        raise Refused(f"unknown query parameters: {', '.join(sorted(unknown))}")


def checked(value, kind, wire=None):
    """The value, if it is what kfp_server_api has a model for: known fields, of the right types, with known values."""
    if value is None or kind == "object":
        return value
    if kind.startswith("list["):
        return [checked(item, kind[5:-1], wire) for item in value]
    if kind.startswith("dict("):
        return {key: checked(item, kind[5:-1].split(", ", 1)[1], wire) for key, item in value.items()}
    if kind in ("str", "int", "bool", "float", "datetime"):
        if kind == "datetime":
            datetime.datetime.fromisoformat(value)
        elif kind != "str" or not isinstance(value, str | int):  # 64-bit numbers are text, or numbers
            assert isinstance(value, {"str": str, "int": int, "bool": bool, "float": float}[kind]), (value, kind)
        return value
    model = getattr(kfp_server_api, kind)
    if values := getattr(model, "allowable_values", None):
        if value not in values and not (isinstance(value, int) and value < len(values)):
            raise Refused(f"unknown value {value} of {kind}")
        return value
    types = {(wire or str)(model.attribute_map[name]): kind for name, kind in model.openapi_types.items()}
    for name, item in value.items():
        if name not in types:
            raise Refused(f'unknown field "{name}" in {kind}')
        checked(item, types[name], wire)
    return value


def parsed(content, message):
    try:
        return json_format.ParseDict(content, message)
    except json_format.ParseError as problem:
        raise Refused(f"Invalid pipeline spec: {problem}") from None


def check_platform(spec, platform):
    """What the API server and the driver make of the second document."""
    message = parsed(platform, pipeline_spec_pb2.PlatformSpec())
    executors = spec.deployment_spec["executors"]
    for label, configuration in message.platforms["kubernetes"].deployment_spec.executors.items():
        if label not in executors:
            raise Refused(f"there is no executor {label}")
        parsed(json_format.MessageToDict(configuration), kubernetes_executor_config_pb2.KubernetesExecutorConfig())


def uploaded(request):
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    (part,) = BytesParser().parsebytes(head + request.body).get_payload()
    assert part.get_param("name", header="content-disposition") == "uploadfile"
    return list(yaml.safe_load_all(part.get_payload(decode=True)))


# ---------------------------------------------------------------------------------------------------- the fixtures


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Tests do not wait like people."""
    monkeypatch.setattr(client_module, "PAUSE", 0.01)


@pytest.fixture
def installation(serve):
    found = Installation()
    found.served = serve(found)
    return found


@pytest.fixture
def open_target():
    """A target with a profile like this one."""

    def start(host, **settings):
        profile = KubeflowProfile.model_validate({"kind": "kubeflow", "host": host, **settings})
        return KubeflowTarget("onprem", profile, lambda name: Resources())

    return start


@pytest.fixture
def target(installation, open_target):
    return open_target(installation.url)


@pytest.fixture
def hello(target, tmp_path):
    return compiled("hello", target, tmp_path)


def compiled(name, target, folder):
    from kfp_hybrid.sources import compile_pipeline

    path = folder / f"{name}.yaml"
    compile_pipeline(name, target, path)
    return Package.load(path)


@pytest.fixture
def always():
    return math.inf


@pytest.fixture
def play(installation):
    """`play(run_id, "RUNNING", {"concatenate": "SUCCEEDED"})` puts a run into a state, as the workflow of Argo has it.

    A task's state is that of its node; "CACHED" and "DRIVER FAILED" are what they say. A task begins every ten seconds.
    """

    def at(seconds):
        return f"2026-11-21T00:00:{seconds:02d}Z"

    def node(name, state, start, end=None, child=None):
        return {
            "run_id": "some-run",
            "task_id": "some-uuid",
            "display_name": name,
            "create_time": at(0),
            "start_time": at(start) if start is not None else NEVER,
            "end_time": at(end) if end is not None else NEVER,
            "state": state,
            **({"child_tasks": [{"pod_name": child}]} if child else {}),
        }

    def set_state(run_id, state, tasks=None, **fields):
        nodes = [node("root-driver", "SUCCEEDED", 0, 1), node("root", state, 1)]
        for number, (name, task_state) in enumerate((tasks or {}).items()):
            start = 10 * number
            if task_state == "DRIVER FAILED":
                nodes += [node(f"{name}-driver", "FAILED", start, start + 2)]
                nodes += [node(name, "RUNTIME_STATE_UNSPECIFIED", start + 2, start + 2)]
                continue
            cached = task_state == "CACHED"
            task_state = "SUCCEEDED" if cached else task_state
            over = task_state not in ("PENDING", "RUNNING")
            nodes += [node(f"{name}-driver", "SUCCEEDED", start, start + 2)]
            nodes += [node(name, task_state, start + 2, start + 8 if over else None, child=f"hello-x7k2p-{number}")]
            nodes += [node("executor", "SKIPPED" if cached else task_state, start + 2, start + 8 if over else None)]
        fields = {"state": state, "run_details": {"task_details": nodes}, **fields}
        installation.runs[run_id].update(checked(fields, "V2beta1Run"))

    return set_state
