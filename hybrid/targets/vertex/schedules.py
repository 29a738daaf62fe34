"""Schedules of Vertex AI Pipelines."""

import contextlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from google.api_core.exceptions import NotFound

from kfp_hybrid.errors import UserError
from kfp_hybrid.package import Package
from kfp_hybrid.targets.runs import Schedule
from kfp_hybrid.targets.vertex.client import TIMEOUT, Client
from kfp_hybrid.targets.vertex.runs import new_job

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import Schedule as Resource

CRON = re.compile(r"((CRON_)?TZ=(?P<zone>\S+) )?\S+( \S+){4}")


def create(
    client: Client, package: Package, arguments: Mapping[str, Any], *, name: str, cron: str, caching: bool
) -> Schedule:
    """Make a schedule.

    Raises:
        UserError: the values do not fit, there is a schedule of that name, or Vertex AI refuses or cannot be reached.
    """
    from google.cloud import aiplatform

    _check_cron(cron)
    for other in existing(client):
        if other.name == name:
            raise UserError(
                f"there is a schedule {name} already ({other.id}, {other.cron}); give this one another name, or delete "
                f"that one with `kfp-hybrid unschedule {other.id}`"
            )
    job = new_job(client, package, arguments, caching=caching)
    try:
        new = aiplatform.PipelineJobSchedule(pipeline_job=job, display_name=name, credentials=client.credentials)
    except ValueError as error:
        raise UserError(f"Vertex AI refuses the schedule {name}: {' '.join(str(error).split())}") from None
    resource = new._gca_resource
    resource.create_pipeline_job_request.pipeline_job = job._gca_resource  # the SDK takes over a part of it only
    resource.cron = cron
    resource.max_concurrent_run_count = 1
    return _schedule(client, client.call(
        "make the schedule",
        lambda: client.schedules.create_schedule(parent=client.parent, schedule=resource, timeout=TIMEOUT),
        again=False,
    ))  # fmt: skip


def existing(client: Client) -> list[Schedule]:
    """The schedules of pipelines in the region, newest first."""
    request = {"parent": client.parent, "order_by": "create_time desc"}
    found = client.call("list the schedules", lambda: list(client.schedules.list_schedules(request, timeout=TIMEOUT)))
    return [_schedule(client, resource) for resource in found if "create_pipeline_job_request" in resource]


def delete(client: Client, schedule_id: str) -> None:
    """Delete a schedule, which Vertex AI does within seconds after it has agreed; runs that it has started go on.

    Raises:
        UserError: there is no such schedule, or Vertex AI refuses or cannot be reached.
    """
    name = f"{client.parent}/schedules/{schedule_id}"

    def there() -> None:
        try:
            client.schedules.get_schedule(name=name, timeout=TIMEOUT)
        except NotFound:
            raise UserError(
                f"there is no schedule {schedule_id} in project {client.profile.project}, {client.profile.location}; "
                "`kfp-hybrid schedules` lists those that there are"
            ) from None

    def remove() -> None:
        with contextlib.suppress(NotFound):  # an earlier attempt got through, though its answer did not
            client.schedules.delete_schedule(name=name, timeout=TIMEOUT)

    client.call("look for the schedule", there)
    client.call("delete the schedule", remove)


def _check_cron(cron: str) -> None:
    match = CRON.fullmatch(cron)
    if not match:
        raise UserError(
            f"{cron!r} is no time for a schedule: it takes five fields, with an optional time zone before them, such "
            "as 'TZ=Europe/Berlin 0 3 * * *'"
        )
    if match["zone"] and match["zone"] not in available_timezones():
        raise UserError(f"there is no time zone {match['zone']}; it takes names such as Europe/Berlin or UTC")


def _schedule(client: Client, resource: "Resource") -> Schedule:
    return Schedule(
        id=resource.name.rpartition("/")[2],
        name=resource.display_name,
        cron=resource.cron,
        enabled=resource.state.name == "ACTIVE",
        url=client.page("schedules", resource.name),
    )
