"""Recurring runs of Kubeflow Pipelines."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import kfp_server_api

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.kubeflow.client import Client, paged
from kfp_hybrid.targets.kubeflow.runs import PAGE_SIZE, as_file, experiment_id, named
from kfp_hybrid.targets.runs import Schedule

UTC = ("UTC", "Etc/UTC", "GMT")

log = logging.getLogger(__name__)


def create(
    client: Client, package: Package, arguments: Mapping[str, Any], *, name: str, cron: str, caching: bool
) -> Schedule:
    """Make a recurring run; see `Target.schedule`."""
    profile = client.profile
    expression = with_seconds(cron)
    experiment = experiment_id(client)
    find = lambda: next(_list(client, named(name)), None)  # noqa: E731 - a thunk, like the others
    if there := client.call("look for schedules of that name", find):
        raise UserError(
            f"there is a schedule {name} already ({there.recurring_run_id}); delete it with "
            f"`kfp-hybrid unschedule {there.recurring_run_id}`, or take another name"
        )
    with as_file(package, caching) as file:
        made = client.call(
            f"make the schedule {name}",
            lambda: client.kfp.create_recurring_run(
                experiment_id=experiment,
                job_name=name,
                cron_expression=expression,
                no_catchup=True,
                max_concurrency=1,
                pipeline_package_path=str(file),
                params=dict(arguments),
                pipeline_root=profile.pipeline_root,
                service_account=profile.service_account,
            ),
            made=find,
        )
    return _schedule(client, made)


def existing(client: Client) -> list[Schedule]:
    """All recurring runs of the namespace; see `Target.schedules`."""
    return [_schedule(client, found) for found in client.call("list the schedules", lambda: list(_list(client)))]


def delete(client: Client, schedule_id: str) -> None:
    """Delete a recurring run; see `Target.unschedule`."""
    doing = f"delete schedule {schedule_id}"
    client.call(doing, lambda: client.kfp.get_recurring_run(schedule_id))
    client.call(
        doing,
        lambda: client.kfp.delete_recurring_run(schedule_id),
        made=lambda: None if any(found.recurring_run_id == schedule_id for found in _list(client)) else {},
    )


def with_seconds(cron: str) -> str:
    """The six fields that Kubeflow Pipelines wants; it takes the first of five for seconds, too.

    Raises:
        UserError: these are not five fields, or they are for a time zone, which Kubeflow Pipelines has for all
            schedules together.
    """
    zone, _, fields = cron.strip().partition(" ") if cron.strip().startswith(("TZ=", "CRON_TZ=")) else ("", "", cron)
    if len(fields.split()) != 5:
        raise UserError(f"{cron!r} is no cron expression of five fields, such as '0 3 * * *'")
    zone = zone.partition("=")[2]
    if zone and zone not in UTC:
        raise UserError(
            f"Kubeflow Pipelines knows no time zone of a schedule, so {zone} cannot be kept; give the time in the "
            "installation's (CRON_SCHEDULE_TIMEZONE of ml-pipeline-scheduledworkflow, UTC as a rule), or use Vertex AI"
        )
    if zone:
        log.warning("the schedule runs in the time zone of the installation, which is UTC unless it was changed")
    return f"0 {' '.join(fields.split())}"


def _without_seconds(trigger: kfp_server_api.V2beta1Trigger | None) -> str:
    """When a schedule starts runs, in five fields where it can be."""
    if trigger is None:
        return ""
    if trigger.periodic_schedule:
        return f"@every {trigger.periodic_schedule.interval_second}s"
    cron = (trigger.cron_schedule.cron if trigger.cron_schedule else "") or ""
    seconds, _, rest = cron.partition(" ")
    return rest if seconds == "0" and len(rest.split()) == 5 else cron


def _list(client: Client, wanted: str | None = None) -> Iterator[kfp_server_api.V2beta1RecurringRun]:
    return paged(
        lambda token: client.kfp.list_recurring_runs(
            page_token=token, page_size=PAGE_SIZE, sort_by="created_at desc",
            namespace=client.profile.namespace, filter=wanted,
        ),
        "recurring_runs",
    )  # fmt: skip


def _schedule(client: Client, found: kfp_server_api.V2beta1RecurringRun) -> Schedule:
    return Schedule(
        id=found.recurring_run_id,
        name=found.display_name,
        cron=_without_seconds(found.trigger),
        enabled=found.status == "ENABLED",
        url=client.page(f"recurringrun/details/{found.recurring_run_id}"),
    )
