"""Takes away everything that carries the name of a suite.

    python -m end_to_end_suite.cleaning NAME     # with the variables of the suite; see scripts/test-cluster.sh --clean

It goes by names, not by what a process remembers, so that it also works after the suite was killed.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from end_to_end_suite import settings
from end_to_end_suite.store import NoStore, connect
from kfp_hybrid.targets.kubeflow import KubeflowTarget
from kfp_hybrid.targets.kubeflow.client import Client, paged
from kfp_hybrid.targets.kubeflow.runs import PAGE_SIZE

STOPPING_SECONDS = 60
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


def experiment_of(name: str) -> str:
    """The experiment of a suite."""
    return f"kfp-hybrid-{name}"


def clean_up(target: KubeflowTarget, name: str, folder: Path) -> None:
    """Take away all that a suite has made.

    Args:
        target: Where it ran.
        name: Its name.
        folder: A private folder, for the credentials of the object store.

    Raises:
        UserError: something cannot be deleted.
        NoStore: all is gone but what is in the object store, which cannot be reached.
    """
    _clean_up_pipelines(target, name)
    store = connect(target, os.environ, folder).store
    for found in store.folders():
        if found.endswith(name):
            store.delete_tree(f"{found}/")


def _clean_up_pipelines(target: KubeflowTarget, name: str) -> None:
    client, kfp = target.client, target.client.kfp
    for schedule in _named(client, kfp.list_recurring_runs, "recurring_runs", name):
        _delete(client, "schedule", schedule, lambda: kfp.delete_recurring_run(schedule.recurring_run_id))
    for experiment in _named(client, kfp.list_experiments, "experiments", name):
        for run in _all(client, kfp.list_runs, "runs", experiment_id=experiment.experiment_id):
            _stop(client, run)
            _delete(client, "run", run, lambda: kfp.delete_run(run.run_id))
        _delete(client, "experiment", experiment, lambda: kfp.delete_experiment(experiment.experiment_id))
    for pipeline in _named(client, kfp.list_pipelines, "pipelines", name):
        pipeline_id = pipeline.pipeline_id
        for version in paged(
            lambda token: kfp.list_pipeline_versions(pipeline_id, page_token=token, page_size=PAGE_SIZE),
            "pipeline_versions",
        ):
            _delete(
                client, "version", version,
                lambda: kfp.delete_pipeline_version(pipeline_id, version.pipeline_version_id),
            )  # fmt: skip
        _delete(client, "pipeline", pipeline, lambda: kfp.delete_pipeline(pipeline_id))


def _stop(client: Client, run: Any) -> None:
    """Stop a run, and give its steps a moment: what they still write would stay."""
    state, end = run.state, time.monotonic() + STOPPING_SECONDS
    if state not in ENDED:
        client.call(f"stop {run.display_name}", lambda: client.kfp.terminate_run(run.run_id))
    while state not in ENDED and time.monotonic() < end:
        time.sleep(1)
        state = client.call(f"look up {run.display_name}", lambda: client.kfp.get_run(run.run_id)).state


def _delete(client: Client, what: str, thing: Any, function: Callable[[], Any]) -> None:
    client.call(f"delete the {what} {thing.display_name}", function)


def _named(client: Client, fetch: Callable[..., Any], field: str, name: str) -> list[Any]:
    return [each for each in _all(client, fetch, field) if each.display_name.endswith(name)]


def _all(client: Client, fetch: Callable[..., Any], field: str, **options: Any) -> list[Any]:
    """All of a list at once: what is deleted from a list moves the pages that follow."""
    namespace = client.profile.namespace

    def read() -> Iterator[Any]:
        return paged(lambda token: fetch(page_token=token, page_size=PAGE_SIZE, namespace=namespace, **options), field)

    return client.call(f"list the {field}", lambda: list(read()))


def main(name: str) -> None:
    """Clean up after the suite `name`."""
    with tempfile.TemporaryDirectory() as folder:
        target = settings.open_target(os.environ, experiment_of(name), Path(folder))
        if target is None:
            sys.exit(f"error: {settings.NOTHING_SET}")
        try:
            clean_up(target, name, Path(folder))
        except NoStore as reason:
            sys.exit(f"error: runs and pipelines of {name} are gone, objects are not: {reason}")
    print(f"nothing of {name} is left")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].startswith("e2e-"):
        sys.exit("usage: python -m end_to_end_suite.cleaning e2e-NAME")
    main(sys.argv[1])
