"""Runs on Vertex AI: pipeline jobs, their tasks, and the logs of the custom jobs that the tasks are."""

import datetime
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.api_core.exceptions import Conflict, NotFound
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.runs import RunStatus, StepStatus
from kfp_hybrid.targets.vertex.client import TIMEOUT, Client
from kfp_hybrid.targets.vertex.packages import check_arguments, job_id

if TYPE_CHECKING:
    from google.cloud.aiplatform import PipelineJob as NewJob
    from google.cloud.aiplatform_v1 import PipelineJob, PipelineTaskDetail

LOGGING = "https://logging.googleapis.com/v2/entries:list"
LOG_READER = "roles/logging.viewer"
PAGE_SIZE = 100
LIST_FIELDS = ("name", "state", "display_name", "create_time")

_STATES = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELLED": "cancelled",
           "RUNNING": "running", "CANCELLING": "running"}  # fmt: skip
_STEP_STATES = {"SUCCEEDED": "done", "FAILED": "failed", "CANCELLED": "stopped", "SKIPPED": "cached",
                "NOT_TRIGGERED": "skipped", "RUNNING": "running", "CANCEL_PENDING": "running",
                "CANCELLING": "running"}  # fmt: skip


def new_job(client: Client, package: Package, arguments: Mapping[str, Any], *, caching: bool) -> "NewJob":
    """The job of a run, not yet submitted, with all that the profile says about runs.

    Raises:
        UserError: the SDK refuses a name or the region.
    """
    from google.cloud import aiplatform

    check_arguments(package, arguments)
    profile = client.profile
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "package.yaml"
        template.write_text(package.text, "utf-8")
        try:
            job = aiplatform.PipelineJob(
                display_name=package.name,
                template_path=str(template),
                job_id=job_id(package),
                pipeline_root=profile.pipeline_root,
                parameter_values=dict(arguments),
                enable_caching=None if caching else False,  # None leaves it to the steps
                encryption_spec_key_name=profile.encryption_key,
                labels=profile.labels or None,
                failure_policy="slow",  # as on the other targets: what does not depend on a failed step goes on
                project=profile.project,
                location=profile.location,
                credentials=client.credentials,
            )
        except ValueError as error:
            raise UserError(f"Vertex AI refuses {package.name}: {' '.join(str(error).split())}") from None
    # The SDK takes some of these when it submits, others never.
    resource = job._gca_resource
    resource.service_account = profile.service_account or ""
    resource.network = profile.network or ""
    resource.reserved_ip_ranges = profile.reserved_ip_ranges
    if profile.network_attachment:
        resource.psc_interface_config.network_attachment = profile.network_attachment
    return job


def submit(client: Client, package: Package, arguments: Mapping[str, Any], *, caching: bool) -> RunStatus:
    """Start a run.

    Raises:
        UserError: the values do not fit, or Vertex AI refuses or cannot be reached.
    """
    job = new_job(client, package, arguments, caching=caching)

    def create() -> "PipelineJob":
        # Not `job.submit`, which first looks for the bucket, may make one, and needs rights on it that runs do not.
        try:
            return client.jobs.create_pipeline_job(
                parent=client.parent, pipeline_job=job._gca_resource, pipeline_job_id=job.job_id, timeout=TIMEOUT
            )
        except Conflict:  # an earlier attempt got through, though its answer did not: nobody else has this id
            return client.jobs.get_pipeline_job(name=f"{client.parent}/pipelineJobs/{job.job_id}", timeout=TIMEOUT)

    return _run_status(client, client.call("start the run", create))


def status(client: Client, run_id: str) -> RunStatus:
    """Where a run stands.

    Raises:
        UserError: there is no such run, or Vertex AI cannot be reached.
    """
    return _run_status(client, _job(client, run_id))


def newest(client: Client, limit: int) -> list[RunStatus]:
    """The newest runs, newest first, without their steps."""
    request = {"parent": client.parent, "page_size": min(limit, PAGE_SIZE), "order_by": "create_time desc",
               "read_mask": {"paths": LIST_FIELDS}}  # fmt: skip

    def jobs() -> "list[PipelineJob]":
        return list(itertools.islice(client.jobs.list_pipeline_jobs(request, timeout=TIMEOUT), limit))

    return [_run_status(client, job) for job in client.call("list the runs", jobs)]


def cancel(client: Client, run_id: str) -> None:
    """Stop a run; it ends within a minute or so.

    Raises:
        UserError: there is no such run, or Vertex AI refuses or cannot be reached.
    """
    job = _job(client, run_id)
    if not _run_status(client, job).ended:
        client.call("cancel the run", lambda: client.jobs.cancel_pipeline_job(name=job.name, timeout=TIMEOUT))


def logs(client: Client, run_id: str, step: str) -> Iterator[str]:
    """The lines that a step has printed, in all its attempts.

    Raises:
        UserError: there is no such run or step, it has printed nothing, or Cloud Logging cannot be read.
    """
    job = _job(client, run_id)
    tasks = dict(_steps(job))
    if step not in tasks:
        raise UserError(f"run {run_id} has no step {step}; it has: {', '.join(tasks) or 'none yet'}")
    task = tasks[step]
    jobs = _custom_jobs(task)
    if not jobs:
        state = _step_status(step, task).state
        why = "its results are from an earlier run" if state == "cached" else f"it is {state}"
        raise UserError(f"step {step} of run {run_id} has no log: {why}; see {client.page('runs', job.name)}")
    ids = " OR ".join(f'"{name.rpartition("/")[2]}"' for name in jobs)
    return _log_lines(
        client, f'resource.type="ml_job" AND resource.labels.job_id=({ids}) '
        f'AND timestamp>="{task.create_time.isoformat()}"',
    )  # fmt: skip


def _log_lines(client: Client, selection: str) -> Iterator[str]:
    body: dict[str, Any] = {
        "resourceNames": [f"projects/{client.profile.project}"],
        "filter": selection,
        "orderBy": "timestamp asc",
        "pageSize": 1000,
    }
    while True:
        page = client.call("read the log", lambda: client.post(LOGGING, body), role=LOG_READER)
        for entry in page.get("entries", []):
            text = entry.get("textPayload") or entry.get("jsonPayload", {}).get("message", "")
            yield from str(text).splitlines()
        if not page.get("nextPageToken"):
            return
        body["pageToken"] = page["nextPageToken"]


def _job(client: Client, run_id: str) -> "PipelineJob":
    def get() -> "PipelineJob":
        try:
            return client.jobs.get_pipeline_job(name=f"{client.parent}/pipelineJobs/{run_id}", timeout=TIMEOUT)
        except NotFound:
            raise UserError(
                f"there is no run {run_id} in project {client.profile.project}, {client.profile.location}; "
                "`kfp-hybrid runs` lists those that there are"
            ) from None

    return client.call("look at the run", get)


def _run_status(client: Client, job: "PipelineJob") -> RunStatus:
    state = job.state.name.removeprefix("PIPELINE_STATE_")
    return RunStatus(
        id=job.name.rpartition("/")[2],
        name=job.display_name,
        state=_STATES.get(state, "waiting"),
        created=job.create_time,
        url=client.page("runs", job.name),
        message=" ".join(job.error.message.split()),
        steps=tuple(_step_status(name, task) for name, task in _steps(job)),
    )


def _steps(job: "PipelineJob") -> Iterator[tuple[str, "PipelineTaskDetail"]]:
    """The tasks that are steps, by name, in the order in which they began.

    There are tasks too for the pipeline itself, its branches, loops and importers: their names are not those of steps.
    A step in a loop is there once for each round; the later ones get a number.
    """
    tasks = job.job_detail.task_details
    names = _step_names(job) if tasks else set()  # a list of runs has neither
    seen: Counter[str] = Counter()
    for task in sorted(tasks, key=lambda task: (task.create_time or _LATER, task.task_id)):
        if task.task_name in names:
            seen[task.task_name] += 1
            number = seen[task.task_name]
            yield task.task_name if number == 1 else f"{task.task_name}[{number}]", task


_LATER = datetime.datetime.max.replace(tzinfo=datetime.timezone.utc)


def _step_names(job: "PipelineJob") -> set[str]:
    """The names of all tasks of the job's package that run a program."""
    sent = json_format.MessageToDict(type(job).pb(job).pipeline_spec)
    spec = json_format.ParseDict(sent, pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=True)
    return {step.task for step in Package(spec, "").steps()}


def _step_status(name: str, task: "PipelineTaskDetail") -> StepStatus:
    state = _STEP_STATES.get(task.state.name, "waiting")
    seconds = None
    if task.start_time and state not in ("cached", "skipped"):
        end = task.end_time or datetime.datetime.now(datetime.timezone.utc)
        seconds = max(0.0, (end - task.start_time).total_seconds())
    return StepStatus(name, state, seconds, " ".join(task.error.message.split()))


def _custom_jobs(task: "PipelineTaskDetail") -> list[str]:
    """The resource names of the custom jobs that a task was tried in, oldest first."""
    container, custom = task.executor_detail.container_detail, task.executor_detail.custom_job_detail
    return [name for name in (*container.failed_main_jobs, container.main_job, *custom.failed_jobs, custom.job) if name]
