"""What the Kubernetes API server answers when it does not do as asked, each in one line that says what to do."""

import json
import re
from dataclasses import dataclass
from typing import Any

import urllib3
from kubernetes.client import ApiException

from kfp_hybrid.kubernetes_api.kinds import Kind
from kfp_hybrid.step import StepError

PASSING_STATUSES = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Where:
    """A request.

    Attributes:
        verb: In the words of RBAC, such as "list".
        kind: Of what.
        name: Of the object; "" for many.
        namespace: Its namespace.
        host: The address of the API server.
        role: The file with the Role that allows it.
    """

    verb: str
    kind: Kind
    name: str
    namespace: str
    host: str
    role: str

    def __str__(self) -> str:
        return f"{self.kind.resource}{'/' if self.name else ''}{self.name} in namespace {self.namespace}"


class Missing(StepError):
    """There is no such object."""


def passing(error: BaseException | None) -> str:
    """Of an error that may be gone the next time, a few words; "" of any other."""
    if isinstance(error, ApiException):
        if error.status in PASSING_STATUSES and not _is_malformed(error):
            message = one_line(_status(error).get("message", ""), 100)
            return f"HTTP status {error.status}{': ' if message else ''}{message}"
        is_race = error.status == 409 and not _field_conflicts(_status(error)) and not _is_another(_status(error))
        return "it changed at the same moment" if is_race else ""
    if isinstance(error, urllib3.exceptions.HTTPError):
        return type(error).__name__
    return "a cut answer" if isinstance(error, json.JSONDecodeError) else ""


def asked_pause(error: BaseException) -> float:
    """How long the server asked to wait, in seconds; 0 when it did not."""
    headers = getattr(error, "headers", None) or {}
    seconds = str(headers.get("Retry-After", ""))
    return float(seconds) if seconds.isdigit() else 0.0


def explain(error: Exception, where: Where) -> StepError:
    """The error that tells the user what to do."""
    if not isinstance(error, ApiException):
        return StepError(
            f"no answer from {where.host} to {where.verb} {where} ({type(error).__name__}); "
            "check that it is reachable, then run the step again"
        )
    if not error.status:  # how the client reports TLS errors
        return StepError(f"no trusted connection to {where.host}: {one_line(error.reason)}; correct the CA in use")
    status = _status(error)
    message = one_line(status.get("message") or error.body or error.reason)
    if error.status == 401:
        return StepError(
            f"{where.host} does not accept this step's credentials; "
            "renew the kubeconfig, or the token of the pod's service account"
        )
    if error.status == 403 and " cannot " in message:
        return _not_allowed(message, where)
    if error.status == 404:
        return _not_found(status, where)
    if error.status == 409 and (conflicts := _field_conflicts(status)):
        return _conflict(conflicts, where)
    if error.status == 409 and _is_another(status):
        return Missing(f"the {where} is another one by now")
    if error.status == 422:
        causes = status.get("details", {}).get("causes") or []
        first = f"{causes[0].get('field')}: {causes[0].get('message')}" if causes else message
        return StepError(f"{where} was refused as invalid: {one_line(first)}; correct that input")
    if passing(error):
        return StepError(f"{where.host} kept answering with HTTP status {error.status}: {message}; run the step again")
    return StepError(f"{where.host} refused to {where.verb} {where}: {message}")


def _not_allowed(message: str, where: Where) -> StepError:
    user = re.search(r'User "([^"]+)"', message)
    who = user.group(1) if user else "this step"
    return StepError(
        f"{who} may not {where.verb} {where.kind.resource}{'/log' if where.name.endswith('/log') else ''} "
        f"in namespace {where.namespace}; bind the Role of {where.role} to it there"
    )


def _not_found(status: dict[str, Any], where: Where) -> StepError:
    details = status.get("details", {})
    if details.get("kind") == "namespaces":
        return StepError(f"there is no namespace {where.namespace}; create it, or give another")
    if status and details.get("name"):
        return Missing(f"there is no {where}")
    if where.kind.absent:
        return StepError(f"{where.host} has no {where.kind.absent}")
    return StepError(f"{where.host} does not know {where.kind.resource}; what defines it is not installed there")


def _conflict(conflicts: list[dict[str, str]], where: Where) -> StepError:
    managers = sorted({manager for each in conflicts for manager in re.findall(r'"([^"]+)"', each.get("message", ""))})
    fields = sorted(each.get("field", "").lstrip(".") for each in conflicts)
    return StepError(
        f"{' and '.join(managers) or 'somebody else'} set {', '.join(fields)} of {where}; "
        "undo that there, or set force=true to take it over"
    )


def _field_conflicts(status: dict[str, Any]) -> list[dict[str, str]]:
    causes = status.get("details", {}).get("causes") or []
    return [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]


def _is_another(status: dict[str, Any]) -> bool:
    """Whether the object was not changed because it does not have the UID that was given."""
    return "UID in precondition" in str(status.get("message"))


def _is_malformed(error: ApiException) -> bool:
    """Whether an apply does not fit the kind's schema, which API servers call an internal error."""
    return "failed to create typed patch object" in str(error.body)


def _status(error: ApiException) -> dict[str, Any]:
    """The Status object of an answer; empty when the body is none."""
    try:
        status = json.loads(error.body or "")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def one_line(text: Any, longest: int = 500) -> str:
    """A text or an error as one line of at most `longest` characters."""
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return " ".join(text.split())[:longest]
