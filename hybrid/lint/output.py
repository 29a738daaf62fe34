"""Findings as a table for people, as JSON for scripts, and as SARIF 2.1.0 for code scanning."""

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console
from rich.table import Table
from rich.text import Text

import kfp_hybrid
from kfp_hybrid import pipelines
from kfp_hybrid.lint.linter import Finding
from kfp_hybrid.lint.rule import ERROR, RULES, TARGETS, WARNING, Rule

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
STYLES = {ERROR: "bold red", WARNING: "yellow"}
WIDTH = 120  # when there is no terminal


def as_text(findings: list[Finding], package: str, targets: Collection[str]) -> str:
    """A table of what to mend, in colour and as wide as the terminal, and one line that counts.

    Args:
        findings: What the linter found.
        package: The file or pipeline that was read.
        targets: What it was held against.
    """
    page = io.StringIO()
    console = Console(file=page, width=shutil.get_terminal_size((WIDTH, 0)).columns, force_terminal=True)
    if findings:
        console.print(_table(findings))
    console.print(_summary(findings, package, targets), highlight=False, soft_wrap=True, markup=False)
    return page.getvalue()


def as_json(findings: list[Finding], package: str, targets: Collection[str]) -> str:
    """Everything about the findings, as one JSON object."""
    levels = Counter(finding.level for finding in findings)
    report = {
        "package": package,
        "targets": list(targets),
        "errors": levels[ERROR],
        "warnings": levels[WARNING],
        "findings": [
            {
                "rule": finding.rule.id,
                "name": finding.rule.name,
                "level": finding.level,
                "targets": list(finding.targets),
                "task": finding.task,
                "message": finding.message,
                "mend": finding.rule.mend,
                "line": finding.line,
            }
            for finding in findings
        ],
    }
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def as_sarif(findings: list[Finding], package: str, targets: Collection[str]) -> str:
    """A SARIF 2.1.0 log with one run, its paths relative to the working directory where they can be."""
    index = {rule.id: position for position, rule in enumerate(RULES)}
    driver = {
        "name": "kfp-hybrid lint",
        "semanticVersion": kfp_hybrid.__version__,
        "rules": [_sarif_rule(rule) for rule in RULES],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif_result(finding, package, index[finding.rule.id]) for finding in findings],
        "properties": {"targets": list(targets)},
    }
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, Callable[[list[Finding], str, Collection[str]], str]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
}


def _table(findings: list[Finding]) -> Table:
    table = Table(show_lines=True)
    for heading in ("rule", "task", "target"):
        table.add_column(heading, overflow="fold")
    table.add_column("what happens, and how to mend it", overflow="fold", ratio=1)
    for finding in findings:
        rule = Text.assemble((finding.level, STYLES[finding.level]), f"\n{finding.rule.id}\n{finding.rule.name}")
        advice = Text.assemble(finding.message, ("\n" + finding.rule.mend, "dim"))
        table.add_row(rule, Text(finding.task or "the package"), Text("\n".join(finding.targets)), advice)
    return table


def _summary(findings: list[Finding], package: str, targets: Collection[str]) -> str:
    levels = Counter(finding.level for finding in findings)
    counted = [f"{levels[level]} {level}{'s' * (levels[level] != 1)}" for level in (ERROR, WARNING) if levels[level]]
    return f"{package}: {' and '.join(counted) or 'nothing to mend'} for {', '.join(targets)}"


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    words = "".join(word.capitalize() for word in rule.name.split("-"))
    return {
        "id": rule.id,
        "name": words,
        "shortDescription": {"text": rule.summary},
        "fullDescription": {"text": rule.description},
        "help": {"text": rule.mend, "markdown": rule.mend},
        "defaultConfiguration": {"level": ERROR if ERROR in rule.levels.values() else WARNING},
        "properties": {"tags": [target for target in TARGETS if target in rule.levels]},
    }


def _sarif_result(finding: Finding, package: str, index: int) -> dict[str, Any]:
    where = ", ".join(finding.targets)
    location = {"physicalLocation": _physical_location(finding, package)}
    if finding.task:
        name = finding.task.rpartition("/")[2]
        location["logicalLocations"] = [{"name": name, "fullyQualifiedName": finding.task, "kind": "object"}]
    identity = "\n".join([finding.rule.id, where, finding.task, finding.message])
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": index,
        "level": finding.level,
        "message": {"text": f"{where}: {finding.task or 'the package'}: {finding.message}. {finding.rule.mend}"},
        "locations": [location],
        "partialFingerprints": {"kfpHybridLint/v1": hashlib.sha256(identity.encode()).hexdigest()},
        "properties": {"targets": list(finding.targets)},
    }


def _physical_location(finding: Finding, package: str) -> Any:
    """The line of the package; for a pipeline that was compiled in memory, its source as a whole."""
    if package.endswith((".yaml", ".yml")):
        return {"artifactLocation": {"uri": _uri(Path(package))}, "region": {"startLine": finding.line}}
    source = Path(pipelines.__path__[0]) / f"{package}.py"
    return {"artifactLocation": {"uri": _uri(source)}, "region": {"startLine": 1}}


def _uri(path: Path) -> str:
    """A path below the working directory as code scanning wants it, relative; any other as a file URI."""
    path, here = path.absolute(), Path.cwd()
    return quote(path.relative_to(here).as_posix()) if path.is_relative_to(here) else path.as_uri()
