"""Vertex AI as far as pipelines need it. What it is sent must be what the real messages can hold, to the last field."""

import json
import re
from datetime import datetime, timedelta, timezone

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

PARENT = "projects/ml-production/locations/europe-west4"
HOST = "europe-west4-aiplatform.googleapis.com"
JOB_ID = re.compile(r"[a-z][-a-z0-9]{0,127}")
LABEL_KEY, LABEL_VALUE = re.compile(r"[a-z][-_a-z0-9]{0,62}"), re.compile(r"[-_a-z0-9]{0,63}")
CRON = re.compile(r"((CRON_)?TZ=[A-Za-z_/]+ )?\S+( \S+){4}")
JOBS_OF_A_PAGE = 3
START = datetime(2026, 11, 21, 12, 0, tzinfo=timezone.utc)

State = types.PipelineState
TaskState = types.PipelineTaskDetail.State
KINDS = {
    "STRING": lambda value: value.WhichOneof("kind") == "string_value",
    "NUMBER_INTEGER": lambda value: value.WhichOneof("kind") == "number_value" and value.number_value.is_integer(),
    "NUMBER_DOUBLE": lambda value: value.WhichOneof("kind") == "number_value",
    "BOOLEAN": lambda value: value.WhichOneof("kind") == "bool_value",
    "LIST": lambda value: value.WhichOneof("kind") == "list_value",
    "STRUCT": lambda value: value.WhichOneof("kind") == "struct_value",
}


class Refusal(Exception):
    """What the service answers to a request that it does not grant."""

    def __init__(self, code: int, status: str, message: str, **details) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"error": {"code": code, "status": status, "message": message, **details}}


class FakeVertex:
    """The pipeline jobs and schedules of one project in one region."""

    def __init__(self) -> None:
        self.jobs: dict[str, types.PipelineJob] = {}
        self.schedules: dict[str, types.Schedule] = {}
        self.story: list = []
        """What happens to a job, in order: each look at it lets the next of these functions change it."""

    def __call__(self, request):
        path = request.path.removeprefix("/v1/")
        if not path.startswith(PARENT):
            raise Refusal(403, "PERMISSION_DENIED", f"Permission denied on resource {path.rpartition('/')[0]}.")
        rest = path.removeprefix(PARENT + "/")
        collection, _, name = rest.partition("/")
        method = f"{request.method} {collection}{'/*' if name else ''}{':cancel' if name.endswith(':cancel') else ''}"
        routes = {
            "POST pipelineJobs": self._create_job,
            "GET pipelineJobs": self._list_jobs,
            "GET pipelineJobs/*": self._get_job,
            "POST pipelineJobs/*:cancel": self._cancel_job,
            "POST schedules": self._create_schedule,
            "GET schedules": self._list_schedules,
            "GET schedules/*": self._get_schedule,
            "DELETE schedules/*": self._delete_schedule,
        }
        assert method in routes, f"the client asks for {request.method} {request.path}"
        return routes[method](request, name.partition(":")[0])

    # ------------------------------------------------------------------------------------------------------- jobs

    def _create_job(self, request, name):
        job_id = request.query["pipelineJobId"]
        assert JOB_ID.fullmatch(job_id), job_id
        if job_id in self.jobs:
            raise Refusal(409, "ALREADY_EXISTS", f"PipelineJob {job_id} already exists.")
        job = parse(request, types.PipelineJob)
        check_job(job)
        job.name, job.state = f"{PARENT}/pipelineJobs/{job_id}", State.PIPELINE_STATE_PENDING
        job.create_time = START + timedelta(minutes=len(self.jobs))
        self.jobs[job_id] = job
        return message(job)

    def _list_jobs(self, request, name):
        """A service may give fewer on a page than asked for."""
        assert request.query.get("orderBy") == "create_time desc" or request.query["pageSize"] == "1"
        jobs = sorted(self.jobs.values(), key=lambda job: job.create_time, reverse=True)
        if mask := request.query.get("readMask"):
            jobs = [types.PipelineJob({field: getattr(job, field) for field in _fields(mask)}) for job in jobs]
        start = int(request.query.get("pageToken", "0"))
        end = start + min(int(request.query["pageSize"]), JOBS_OF_A_PAGE)
        token = {"next_page_token": str(end)} if jobs[end:] else {}
        return message(types.ListPipelineJobsResponse(pipeline_jobs=jobs[start:end], **token))

    def _get_job(self, request, name):
        job = self._job(name)
        if self.story:
            self.story.pop(0)(job)
        return message(job)

    def _cancel_job(self, request, name):
        job = self._job(name)
        if job.state not in (State.PIPELINE_STATE_PENDING, State.PIPELINE_STATE_RUNNING):
            raise Refusal(400, "FAILED_PRECONDITION", "The PipelineJob is in a terminal state.")
        job.state = State.PIPELINE_STATE_CANCELLING
        return 200, {}

    def _job(self, name):
        if name not in self.jobs:
            raise Refusal(404, "NOT_FOUND", f"The PipelineJob does not exist: {PARENT}/pipelineJobs/{name}")
        return self.jobs[name]

    # -------------------------------------------------------------------------------------------------- schedules

    def _create_schedule(self, request, name):
        schedule = parse(request, types.Schedule)
        assert schedule.display_name and len(schedule.display_name) <= 128
        assert CRON.fullmatch(schedule.cron)
        assert schedule.max_concurrent_run_count >= 1, "which the service requires"
        wanted = schedule.create_pipeline_job_request
        assert wanted.parent == PARENT
        assert not wanted.pipeline_job_id, "each run needs an id of its own"
        check_job(wanted.pipeline_job)
        schedule.name = f"{PARENT}/schedules/{1000 + len(self.schedules)}"
        schedule.state = types.Schedule.State.ACTIVE
        self.schedules[schedule.name.rpartition("/")[2]] = schedule
        return message(schedule)

    def _list_schedules(self, request, name):
        """One on a page."""
        everything = list(self.schedules.values())[::-1]
        start = int(request.query.get("pageToken", "0"))
        token = {"next_page_token": str(start + 1)} if everything[start + 1 :] else {}
        return message(types.ListSchedulesResponse(schedules=everything[start : start + 1], **token))

    def _get_schedule(self, request, name):
        return message(self._schedule(name))

    def _delete_schedule(self, request, name):
        del self.schedules[self._schedule(name).name.rpartition("/")[2]]
        return 200, {"name": f"{PARENT}/operations/7"}

    def _schedule(self, name):
        if name not in self.schedules:
            raise Refusal(404, "NOT_FOUND", f"The Schedule does not exist: {PARENT}/schedules/{name}")
        return self.schedules[name]


def parse(request, kind):
    """The message in a request: no unknown field, no unknown enum value."""
    assert request.headers["Content-Type"] == "application/json"
    parsed = kind()
    json_format.Parse(request.body, kind.pb(parsed), ignore_unknown_fields=False)
    _check_enums(kind.pb(parsed))
    return parsed


def message(answer):
    """A message as the service writes it for clients that ask for enums as numbers."""
    return 200, json.loads(type(answer).to_json(answer, use_integers_for_enums=True, indent=None))


def check_job(job) -> None:
    """Refuse a job that Vertex AI would refuse."""
    for field in ("name", "state", "create_time", "job_detail", "error", "schedule_name"):
        assert field not in job, f"{field} is for the service to say"
    assert job.display_name and len(job.display_name) <= 128
    assert all(LABEL_KEY.fullmatch(key) and LABEL_VALUE.fullmatch(value) for key, value in job.labels.items())
    assert not (job.network and "psc_interface_config" in job)
    assert job.network or not job.reserved_ip_ranges
    spec = pipeline_spec_pb2.PipelineSpec()
    sent = json_format.MessageToDict(types.PipelineJob.pb(job).pipeline_spec)
    json_format.ParseDict(sent, spec, ignore_unknown_fields=False)
    assert spec.pipeline_info.name and spec.schema_version == "2.1.0" and spec.root.dag.tasks
    config = types.PipelineJob.pb(job).runtime_config
    assert config.gcs_output_directory.startswith("gs://")
    assert not config.parameters, "which are for schema 2.0"
    declared = spec.root.input_definitions.parameters
    for name, value in config.parameter_values.items():
        kind = pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(declared[name].parameter_type)
        assert KINDS[kind](value), f"{name} is a {kind}"
    for name, declaration in declared.items():
        optional = declaration.is_optional or declaration.HasField("default_value")
        assert optional or name in config.parameter_values, f"{name} has no value"


def task(name: str, state: str, *, number: int = 1, parent: int = 0, job: str = "", **more) -> types.PipelineTaskDetail:
    """A task of a job; `job` is the number of the custom job that runs it."""
    ended = state not in ("PENDING", "RUNNING")
    detail = types.PipelineTaskDetail(
        task_id=number, parent_task_id=parent, task_name=name, state=TaskState[state],
        create_time=START + timedelta(minutes=number), start_time=START + timedelta(minutes=number), **more,
    )  # fmt: skip
    if ended:
        detail.end_time = START + timedelta(minutes=number, seconds=30)
    if job:
        detail.executor_detail.container_detail.main_job = f"{PARENT}/customJobs/{job}"
    return detail


def _fields(mask):
    fields = mask.split(",")
    known = types.PipelineJob.pb(types.PipelineJob()).DESCRIPTOR.fields_by_name
    names = [re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", field) for field in fields]
    assert set(names) <= set(known), mask
    return names


def _check_enums(parsed) -> None:
    for field, value in parsed.ListFields():
        entry = field.message_type and field.message_type.GetOptions().map_entry
        if field.enum_type:
            assert value in field.enum_type.values_by_number, f"{field.name} has no value {value}"
        elif entry:
            for item in value.values() if field.message_type.fields_by_name["value"].message_type else ():
                _check_enums(item)
        elif field.message_type:
            for item in value if field.is_repeated else [value]:
                _check_enums(item)
