"""What a rule is. Adding one: a function with the decorator `rule` in `rules/`, and two tests."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kfp_hybrid.lint.spec import Pipeline, Task

LOCAL, KUBEFLOW, VERTEX = TARGETS = ("local", "kubeflow", "vertex")
ERROR, WARNING = "error", "warning"


@dataclass(frozen=True)
class Breach:
    """One place where a package breaks a rule.

    Attributes:
        target: Where that matters.
        what: What is there, and what happens on that target.
        task: The task concerned; None when it is the package as a whole.
    """

    target: str
    what: str
    task: Task | None = None


@dataclass(frozen=True)
class Rule:
    """Something a package must respect to run everywhere.

    Attributes:
        id: Stable: KH and three digits, of which the first is the family.
        name: Stable: what it is about, in a few words.
        mend: What to do about a breach.
        levels: target -> "error" (fails there, or has other results) or "warning" (only slower, dearer or fragile).
        check: Finds the breaches in a package.
    """

    id: str
    name: str
    mend: str
    levels: dict[str, str]
    check: Callable[[Pipeline], Iterable[Breach]]

    @property
    def description(self) -> str:
        """What a package must respect, and why."""
        return inspect.getdoc(self.check) or ""

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return self.description.partition("\n")[0]


RULES: list[Rule] = []


def rule(id: str, name: str, *, mend: str, **levels: str) -> Callable:
    """Make a rule of a function that yields breaches; its docstring becomes the rule's description.

    Args:
        id: Stable identifier, never used again for another rule.
        name: Stable short name.
        mend: What to do about a breach.
        **levels: How grave a breach is on each target that it concerns: `local=ERROR, vertex=WARNING`.
    """

    def register(check: Callable[[Pipeline], Iterable[Breach]]) -> Callable[[Pipeline], Iterable[Breach]]:
        RULES.append(Rule(id, name, mend, levels, check))
        return check

    return register
