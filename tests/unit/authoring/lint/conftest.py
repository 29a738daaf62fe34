"""Pipelines compiled from source, linted, and run on kfp.local to see whether a rule tells the truth."""

import builtins
import contextlib
import io
import warnings
from dataclasses import dataclass

import pytest
from kfp import compiler, components, local
from kfp.local import config

from kfp_hybrid.lint import TARGETS, lint
from kfp_hybrid.package import Package


@dataclass
class Outcome:
    """What came of a local run: the error that ended it ("" when it succeeded), and what its steps noted."""

    error: str
    notes: list[str]


@pytest.fixture
def package(tmp_path):
    """A function that compiles a pipeline into a package."""

    def compiled(pipeline):
        path = tmp_path / "package.yaml"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiler.Compiler().compile(pipeline, str(path))
        return Package.load(path)

    return compiled


@pytest.fixture
def broken(package):
    """A function that lints a pipeline: the set of (rule, task, target, level) that it breaks."""

    def found(pipeline, targets=TARGETS):
        compiled = pipeline if isinstance(pipeline, Package) else package(pipeline)
        return {
            (finding.rule.id, finding.task, target, finding.level)
            for finding in lint(compiled, targets)
            for target in finding.targets
        }

    return found


@pytest.fixture
def run(package, tmp_path, monkeypatch, caplog):
    """A function that runs a pipeline on kfp.local as it is, each step in this interpreter.

    A step notes something by adding a line to the file that the variable NOTES names.
    """
    notes = tmp_path / "notes"
    monkeypatch.setenv("NOTES", str(notes))
    monkeypatch.setattr(config.LocalExecutionConfig, "instance", None)  # undone after the test, like the next one
    monkeypatch.setattr(builtins, "print", builtins.print)

    def outcome(pipeline, **arguments):
        text = package(pipeline).text
        notes.write_text("")
        error = ""
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            local.init(
                local.SubprocessRunner(use_venv=False),
                pipeline_root=str(tmp_path / "root"),
                workspace_root=str(tmp_path / "workspace"),
            )
            try:
                components.load_component_from_text(text)(**arguments)
            except Exception as caught:
                error = f"{type(caught).__name__}: {caught}\n{caplog.text}"
        return Outcome(error, notes.read_text().splitlines())

    return outcome
