"""Run the rules over a package."""

from collections.abc import Collection
from dataclasses import dataclass

from kfp_hybrid.lint import rules
from kfp_hybrid.lint.rule import ERROR, TARGETS, Rule
from kfp_hybrid.lint.spec import Pipeline
from kfp_hybrid.package import Package


@dataclass(frozen=True)
class Finding:
    """A rule that a package breaks.

    Attributes:
        rule: The rule.
        level: "error" or "warning".
        targets: Where it matters, in the same way.
        task: The path of the task concerned, such as `for-loop-1/train`; "" when it is the package as a whole.
        message: What is there, and what happens on those targets.
        line: The line of the package it is about, from 1.
    """

    rule: Rule
    level: str
    targets: tuple[str, ...]
    task: str
    message: str
    line: int


def lint(package: Package, targets: Collection[str] = TARGETS) -> list[Finding]:
    """Find what would break on `targets`: errors first, then by rule and task.

    Args:
        package: A compiled pipeline, of this collection or any other.
        targets: Some of "local", "kubeflow" and "vertex".

    Raises:
        UserError: the package is damaged.
    """
    pipeline = Pipeline(package)
    found: dict[tuple, list[str]] = {}
    for rule in rules.RULES:
        for breach in rule.check(pipeline):
            if breach.target in targets:
                task = breach.task.path if breach.task else ""
                line = pipeline.line(breach.task.place) if breach.task else 1
                alike = found.setdefault((rule.id, rule.levels[breach.target], task, breach.what, line), [])
                if breach.target not in alike:
                    alike.append(breach.target)
    by_id = {rule.id: rule for rule in rules.RULES}
    findings = [
        Finding(by_id[id], level, tuple(sorted(concerned, key=TARGETS.index)), task, what, line)
        for (id, level, task, what, line), concerned in found.items()
    ]
    return sorted(findings, key=lambda finding: (finding.level != ERROR, finding.rule.id, finding.task))
