"""The page about the rules, from the rules.

python -m kfp_hybrid.lint.docs --check docs/lint.md    # exit status 1 when the page is out of date
python -m kfp_hybrid.lint.docs --write docs/lint.md
"""

import argparse
import sys
from pathlib import Path

from kfp_hybrid.lint import rules
from kfp_hybrid.lint.rule import TARGETS, Rule

HEAD = """\
# What a package must respect

<!-- Written by `python -m kfp_hybrid.lint.docs --write docs/lint.md`; edit the rules in hybrid/lint/rules. -->

`kfp-hybrid lint PACKAGE` reads a compiled package, of this collection or any other, or a pipeline of this collection by
name, and says what in it would break on which target:

    kfp-hybrid lint train_and_publish
    kfp-hybrid lint my-package.yaml --target kubeflow --target vertex
    kfp-hybrid lint my-package.yaml --format sarif -o lint.sarif

An **error** fails on that target, or gives other results there. A **warning** only tunes, or fails with some data. The
exit status is 1 when there is an error for one of the targets asked for (all three, when none is given), else 0.
`--format json` is for scripts, `--format sarif` (2.1.0) for code scanning.

The targets are `local` (`kfp-hybrid run`, on kfp.local), `kubeflow` (open-source Kubeflow Pipelines 2.17) and `vertex`
(Vertex AI Pipelines).
"""


def page() -> str:
    """The whole page."""
    table = ["| rule | " + " | ".join(TARGETS) + " |", "|---" * (len(TARGETS) + 1) + "|"]
    table += [
        f"| [{rule.id} {rule.name}](#{_anchor(rule)}) | "
        + " | ".join(rule.levels.get(target, "") for target in TARGETS)
        + " |"
        for rule in rules.RULES
    ]
    return "\n".join([HEAD, *table, "", *(_section(rule) for rule in rules.RULES)])


def main(arguments: list[str] | None = None) -> int:
    """Check or write the page; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m kfp_hybrid.lint.docs", description="The page about the rules.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", action="store_true", help="exit status 1 when FILE is out of date")
    mode.add_argument("--write", action="store_true", help="write FILE")
    parser.add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    if options.write:
        options.file.write_text(page(), encoding="utf-8")
    elif not options.file.exists() or options.file.read_text(encoding="utf-8") != page():
        print(f"out of date: {options.file}; run: {parser.prog} --write {options.file}", file=sys.stderr)
        return 1
    return 0


def _anchor(rule: Rule) -> str:
    return f"{rule.id.lower()}-{rule.name}"


def _section(rule: Rule) -> str:
    levels = ", ".join(f"{rule.levels[target]} on {target}" for target in TARGETS if target in rule.levels)
    return f"## {rule.id} {rule.name}\n\n{rule.description}\n\n*{levels}.* Mend: {rule.mend}\n"


if __name__ == "__main__":
    sys.exit(main())
