"""Checks, and the verdict that they come to."""

from collections.abc import Sequence
from dataclasses import dataclass

PASSED, FAILED, REPORTED, SKIPPED = "passed", "failed", "reported", "skipped"


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What was looked at.
        outcome: `PASSED`, `FAILED`, `REPORTED` (there is no limit) or `SKIPPED` (it could not be looked at).
        measured: What was found.
        limit: What it has to keep; "" where there is no limit.
        failure: For a failed check, one clause that says what is wrong and where.
    """

    name: str
    outcome: str
    measured: str
    limit: str = ""
    failure: str = ""


def judge(name: str, value: float, limit: float, unit: str, what: str = "") -> Check:
    """Compare a number with its limit, or report it when the limit is 0.

    Args:
        name: What was measured.
        value: What came out.
        limit: The most it may be; 0 for anything.
        unit: Of both, with the space before it, such as " ms".
        what: More about the value, for the failure.
    """
    measured = f"{value:.4g}{unit}"
    if not limit:
        return Check(name, REPORTED, measured)
    shown = f"at most {limit:.4g}{unit}"
    if value <= limit:
        return Check(name, PASSED, measured, shown)
    return Check(name, FAILED, measured, shown, f"the {name} is {measured}, {shown} is allowed{what}")


def servable(checks: Sequence[Check]) -> bool:
    """Whether no check fails."""
    return all(check.outcome != FAILED for check in checks)


def explain(checks: Sequence[Check], found: str) -> str:
    """The verdict in one sentence.

    Args:
        checks: All of them.
        found: What was found, for a model that is servable.
    """
    failed = [check for check in checks if check.outcome == FAILED]
    if not failed:
        return f"servable: {found}"
    others = len(failed) - 1
    more = f" (and {others} more check{'s' if others > 1 else ''} failed)" if others else ""
    return f"not servable: {failed[0].failure}{more}"
