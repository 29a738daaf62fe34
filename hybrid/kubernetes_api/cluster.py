"""A namespace of a cluster: a few verbs for any kind of object, with retries and clear errors."""

import contextlib
import json
from typing import Any

import urllib3
from kubernetes.client import ApiClient, ApiException

from kfp_hybrid.kubernetes_api import errors
from kfp_hybrid.kubernetes_api.kinds import EVENTS, PODS, Kind
from kfp_hybrid.retries import retry

RETRY_SECONDS = 120.0
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


class Cluster:
    """One namespace of a cluster.

    Every method raises `StepError` with one line for what the user can put right, after retrying what may pass.

    Attributes:
        namespace: The namespace.

    Args:
        api: The connection, see `connection.connect`.
        namespace: The namespace.
        manager: The name by which the API server knows whose a field is.
        role: The file with the Role that gives the rights that are needed, for messages.
        retry_seconds: For how long to try again when the API server is away or busy.
    """

    def __init__(
        self, api: ApiClient, namespace: str, *, manager: str, role: str, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self.namespace = namespace
        self._api = api
        self._manager = manager
        self._role = role
        self._retry_seconds = retry_seconds

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """The object, or None when there is none."""
        try:
            return self._call("get", kind, name)
        except errors.Missing:
            return None

    def find(self, kind: Kind, *, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """The objects that match both selectors."""
        query = [("labelSelector", labels), ("fieldSelector", fields)]
        return self._call("list", kind, query=[(key, value) for key, value in query if value])["items"]

    def warnings(self, kind: Kind | None = None, name: str = "") -> list[dict[str, Any]]:
        """The events that warn, of one object or of all."""
        of = f",involvedObject.kind={kind.name},involvedObject.name={name}" if kind else ""
        return self.find(EVENTS, fields=f"type=Warning{of}")

    def apply(self, kind: Kind, item: dict[str, Any], *, force: bool = False) -> dict[str, Any]:
        """Make the fields of `item` so, and those asked for earlier but no more go away (server-side apply).

        Args:
            kind: The kind of the object.
            item: metadata and what else is asked for.
            force: Take over fields that another manager has set.
        """
        metadata = {**item["metadata"], "namespace": self.namespace}
        body = {"apiVersion": kind.api_version, "kind": kind.name, **item, "metadata": metadata}
        query = [("fieldManager", self._manager), ("force", "true" if force else "false")]
        return self._call("patch", kind, metadata["name"], query=query, body=body, content_type=APPLY)

    def merge(self, kind: Kind, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Set some fields of an object that is there (merge patch)."""
        query = [("fieldManager", self._manager)]
        return self._call("patch", kind, name, query=query, body=fields, content_type=MERGE)

    def delete(self, kind: Kind, name: str, uid: str = "") -> None:
        """Delete an object and what belongs to it; one that is gone already is no error.

        Args:
            kind: The kind of the object.
            name: Its name.
            uid: If given, one that was made anew under that name meanwhile is left alone.
        """
        body = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        with contextlib.suppress(errors.Missing):
            self._call("delete", kind, name, body=body)

    def log(
        self,
        pod: str,
        container: str = "",
        *,
        previous: bool = False,
        timestamps: bool = False,
        lines: int | None = None,
        since_seconds: int | None = None,
        retry_seconds: float | None = None,
    ) -> str:
        """The log of a container.

        Args:
            pod: Name of the pod.
            container: Its container; "" where there is only one.
            previous: Of the container that was there before it was started again.
            timestamps: Put the time in front of each line.
            lines: The most lines, counted from the end; None for all.
            since_seconds: How far back to begin; None for the start.
            retry_seconds: Instead of that of the class.

        Raises:
            StepError: there is none (yet, or any more), or it cannot be read.
        """
        wanted = {
            "container": container,
            "previous": previous and "true",
            "timestamps": timestamps and "true",
            "tailLines": lines,
            "sinceSeconds": since_seconds,
        }
        query = [(name, str(value)) for name, value in wanted.items() if value]
        return self._call("get", PODS, f"{pod}/log", query=query, text=True, retry_seconds=retry_seconds)

    def _call(
        self,
        verb: str,
        kind: Kind,
        name: str = "",
        *,
        query: list[tuple[str, str]] | None = None,
        body: dict[str, Any] | None = None,
        content_type: str = "application/json",
        text: bool = False,
        retry_seconds: float | None = None,
    ) -> Any:
        def send() -> Any:
            response = self._api.call_api(
                f"{kind.path(self.namespace)}{'/' if name else ''}{name}",
                {"list": "GET"}.get(verb, verb.upper()),
                query_params=query or [],
                header_params={"Accept": "*/*" if text else "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            )
            return response.data.decode(errors="replace") if text else json.loads(response.data)

        where = errors.Where(verb, kind, name, self.namespace, self._api.configuration.host, self._role)
        seconds = self._retry_seconds if retry_seconds is None else retry_seconds
        try:
            return retry(send, f"{verb} {where}", errors.passing, lambda _: seconds, errors.asked_pause)
        except (ApiException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise errors.explain(error, where) from None
