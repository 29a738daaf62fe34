"""Checks of a target's profile against reality."""

from collections.abc import Callable
from dataclasses import dataclass

from kfp_hybrid.errors import UserError


class CheckWarning(UserError):
    """Something that may be right but deserves a look; raised by a check instead of a `UserError`."""


@dataclass(frozen=True)
class Check:
    """One thing that has to be so before runs can work.

    Attributes:
        title: What has to be so, such as "the host is reachable".
        run: Tries it and returns what it found, in a few words ("Kubeflow Pipelines 2.17.0"). It raises `UserError`
            with what is wrong and what to do, `CheckWarning` when runs may work all the same.
        needed: Later checks make no sense when this one fails.
    """

    title: str
    run: Callable[[], str]
    needed: bool = False
