"""Runs of Kubeflow Pipelines."""

import datetime
import itertools
import json
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from kfp_hybrid.package import Package
from kfp_hybrid.targets.kubeflow.client import Client, paged
from kfp_hybrid.targets.runs import ENDED, RunStatus, StepStatus

PAGE_SIZE = 100

_RUN_STATES = {
    "PENDING": "waiting", "RUNNING": "running", "SUCCEEDED": "succeeded", "SKIPPED": "succeeded", "FAILED": "failed",
    "CANCELING": "running", "CANCELED": "cancelled", "PAUSED": "waiting",
}  # fmt: skip
_STEP_STATES = {
    "PENDING": "waiting", "RUNNING": "running", "SUCCEEDED": "done", "SKIPPED": "skipped", "FAILED": "failed",
    "CANCELING": "running", "CANCELED": "stopped", "PAUSED": "waiting",
}  # fmt: skip


def submit(client: Client, package: Package, arguments: Mapping[str, Any], *, caching: bool) -> RunStatus:
    """Start a run; see `Target.submit`."""
    profile = client.profile
    now = datetime.datetime.now(datetime.timezone.utc)
    name = f"{package.name}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    experiment = experiment_id(client)
    with as_file(package, caching) as file:
        run = client.call(
            f"start a run of {package.name}",
            lambda: client.kfp.run_pipeline(
                experiment_id=experiment,
                job_name=name,
                pipeline_package_path=str(file),
                params=dict(arguments),
                pipeline_root=profile.pipeline_root,
                service_account=profile.service_account,
            ),
            # A second run would do the work twice. No other run has this name.
            made=lambda: next(iter(_list_runs(client, 1, named(name))), None),
        )
    return _run_status(client, run)


def status(client: Client, run_id: str) -> RunStatus:
    """Where a run and its steps stand; see `Target.status`."""
    run, package = read(client, run_id)
    return _run_status(client, run, steps_of(run, package))


def newest(client: Client, limit: int) -> list[RunStatus]:
    """The newest runs of the namespace; see `Target.runs`."""
    runs = client.call("list the runs", lambda: list(_list_runs(client, limit)))
    return [_run_status(client, run) for run in runs]


def cancel(client: Client, run_id: str) -> None:
    """Stop a run; see `Target.cancel`."""
    run = client.call(f"look up run {run_id}", lambda: client.kfp.get_run(run_id))
    if _RUN_STATES.get(run.state) not in ENDED:
        client.call(f"cancel run {run_id}", lambda: client.kfp.terminate_run(run_id))


def read(client: Client, run_id: str) -> tuple[kfp_server_api.V2beta1Run, Package]:
    """A run, and what it runs."""
    run = client.call(f"look up run {run_id}", lambda: client.kfp.get_run(run_id))
    source = run.pipeline_spec
    reference = run.pipeline_version_reference
    if source is None and reference and reference.pipeline_version_id:
        version = client.call(
            f"look up the pipeline of run {run_id}",
            lambda: client.kfp.get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id),
        )
        source = version.pipeline_spec
    return run, package_from(source or {})


def package_from(source: Mapping[str, Any]) -> Package:
    """The package in an answer: a pipeline, or a pipeline and what platforms are to do for it."""
    spec = json_format.ParseDict(
        source.get("pipeline_spec", source), pipeline_spec_pb2.PipelineSpec(), ignore_unknown_fields=True
    )
    return Package(spec, "")


def steps_of(run: kfp_server_api.V2beta1Run, package: Package) -> list[StepStatus]:
    """The steps of a run in the order of its package, from the nodes of its Argo workflow.

    A task `train` has a node `train-driver`, which reads its inputs and the cache, and a node `train`. Below the latter
    is a node `executor`, or several with retries, which is skipped when the result was in the cache. A task in a loop
    has nodes for each round.
    """
    nodes: dict[str, list[Any]] = {}
    for detail in details_of(run):
        nodes.setdefault(detail.display_name, []).append(detail)
    executors = [node for name, found in nodes.items() if name.startswith("executor") for node in found]
    over = _RUN_STATES.get(run.state) in ENDED
    names = dict.fromkeys(step.task for step in package.steps())
    return [_step(name, nodes, executors, over) for name in names]


def details_of(run: kfp_server_api.V2beta1Run) -> list[Any]:
    """The nodes of the run's Argo workflow."""
    return (run.run_details.task_details if run.run_details else None) or []


def experiment_id(client: Client) -> str:
    """The id of the profile's experiment, which is made when it is not there."""
    profile = client.profile
    experiment = client.call(
        f"open the experiment {profile.experiment}",
        lambda: client.kfp.create_experiment(profile.experiment, namespace=profile.namespace),
    )
    return experiment.experiment_id


def named(name: str) -> str:
    """The filter of lists for what has this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


@contextmanager
def as_file(package: Package, caching: bool) -> Iterator[Path]:
    """The package as kfp's client takes it.

    Its own `enable_caching` would switch the cache on for steps that must not have it, and would not switch it off in
    branches and loops.
    """
    text = package.text if caching else _without_caching(package.text)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "package.yaml"
        file.write_text(text, "utf-8")
        yield file


def _without_caching(text: str) -> str:
    pipeline, *others = yaml.safe_load_all(text)
    for component in [pipeline["root"], *pipeline.get("components", {}).values()]:
        for task in component.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {}
    return yaml.safe_dump_all([pipeline, *others])


def _list_runs(client: Client, limit: int, wanted: str | None = None) -> Iterator[kfp_server_api.V2beta1Run]:
    """The newest runs; not tried again here, but by who calls it."""
    runs = paged(
        lambda token: client.kfp.list_runs(
            page_token=token, page_size=min(limit, PAGE_SIZE), sort_by="created_at desc",
            namespace=client.profile.namespace, filter=wanted,
        ),
        "runs",
    )  # fmt: skip
    return itertools.islice(runs, limit)


def _run_status(client: Client, run: kfp_server_api.V2beta1Run, steps: Iterable[StepStatus] = ()) -> RunStatus:
    steps = tuple(steps)
    state = _RUN_STATES.get(run.state, "waiting")
    return RunStatus(
        id=run.run_id,
        name=run.display_name,
        state=state,
        created=_moment(run.created_at),
        url=client.page(f"runs/details/{run.run_id}"),
        message=_why(run, steps) if state == "failed" else "",
        steps=steps,
    )


def _why(run: kfp_server_api.V2beta1Run, steps: Iterable[StepStatus]) -> str:
    said = [status.error.message for status in [run, *(run.state_history or [])] if status.error]
    failed = [step.name for step in steps if step.state == "failed"]
    return " ".join(said[-1].split()) if said else f"step {', '.join(failed)} failed" if failed else ""


def _step(name: str, nodes: Mapping[str, list[Any]], executors: list[Any], over: bool) -> StepStatus:
    own = nodes.get(name, [])
    states = [_STEP_STATES.get(node.state, "waiting") for node in own]
    states += ["failed" for driver in nodes.get(f"{name}-driver", []) if driver.state == "FAILED"]
    state = next(
        (state for state in ("failed", "stopped", "running", "waiting", "done", "skipped") if state in states),
        "waiting",
    )
    if state == "done" and all(_is_cached(node, executors) for node in own):
        state = "cached"
    if over and state in ("running", "waiting"):
        state = "stopped" if state == "running" else "skipped"
    begun = [moment for node in own if (moment := _moment(node.start_time))]
    ended = [moment for node in own if (moment := _moment(node.end_time))]
    seconds = None
    if begun and state not in ("waiting", "skipped"):
        end = max(ended) if ended and state != "running" else datetime.datetime.now(datetime.timezone.utc)
        seconds = max(0.0, (end - min(begun)).total_seconds())
    said = [node.error.message for node in own if node.error and node.error.message]
    return StepStatus(name, state, seconds, " ".join(said[-1].split()) if said and state == "failed" else "")


def _is_cached(node: Any, executors: list[Any]) -> bool:
    """Whether a task that succeeded took an earlier result.

    The API does not say which executor belongs to which task. Argo makes both in one go, so those of the same second
    tell: the task ran if any of them did.
    """
    begun = _moment(node.start_time)
    if begun is None:
        return False
    second = datetime.timedelta(seconds=1)
    beside = [e.state for e in executors if (e_begun := _moment(e.start_time)) and begun <= e_begun <= begun + second]
    return bool(beside) and set(beside) == {"SKIPPED"}


def _moment(time: datetime.datetime | None) -> datetime.datetime | None:
    """A time; the server writes the beginning of time for what has not happened yet."""
    return time if time is not None and time.year > 1970 else None
