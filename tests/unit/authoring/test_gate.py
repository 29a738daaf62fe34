"""scripts/test.sh and .ci/run: what they start, and how they end. The programs that they start are stubs."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
SUITES = ["library", "tensorflow", "cluster", "validation", "contract", "serving", "deployment"]
STUB = r"""#!/bin/bash
name=${0##*/}
call="$name $*"
echo "$call" >> "$STUBS/calls"
[ -n "$FAILS" ] && [[ "$call" == *"$FAILS"* ]] && exit 1
if [ -n "$HANGS" ] && [[ "$call" == *"$HANGS"* ]]; then
  trap 'echo "$call was interrupted" >> "$STUBS/calls"; exit 2' INT
  touch "$STUBS/hangs"
  while true; do sleep 0.05; done
fi
exit 0
"""


class Gate:
    """A copy of the repository in which the scripts find stubs."""

    def __init__(self, folder):
        self.root, self.state, programs = folder / "repository", folder / "stubs", folder / "bin"
        self.state.mkdir()
        programs.mkdir()
        (self.root / "scripts").mkdir(parents=True)
        (self.root / ".ci").mkdir()
        (self.root / ".venv/bin").mkdir(parents=True)
        for name in ("scripts/test.sh", ".ci/run"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("setup.sh", "check.sh", "docker-up.sh", "base-image.sh", "images.sh"):
            self._stub(self.root / "scripts" / name)
        for name in ("python", "kfp-hybrid", "uv"):
            self._stub(self.root / ".venv/bin" / name)
        self.environ = {"PATH": "/usr/bin:/bin", "STUBS": str(self.state), "FAILS": "", "HANGS": "", "JOBS": "2"}

    def _stub(self, file):
        file.write_text(STUB)
        file.chmod(0o755)

    def start(self, script, *arguments, **environ):
        return subprocess.Popen(["/bin/bash", self.root / script, *arguments], env={**self.environ, **environ},
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip

    def run(self, script, *arguments, **environ):
        process = self.start(script, *arguments, **environ)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    @property
    def calls(self):
        return (self.state / "calls").read_text().splitlines()

    def called(self, start):
        return [call for call in self.calls if call.startswith(start)]


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


def test_every_suite_runs_with_its_own_interpreter_and_gets_the_arguments(gate):
    status, output = gate.run("scripts/test.sh", "-x")
    assert status == 0, output
    assert gate.called("python -m pytest tests/unit/authoring tests/local -x")
    for image in ("tensorflow", "validation", "serving", "deployment"):
        assert gate.called(f"kfp-hybrid python {image} -m pytest tests/unit/{image} -x")
    for suite in SUITES:
        assert f"== {suite}, after" in output
    assert not gate.called("images.sh")


@pytest.mark.parametrize("suite", SUITES)
def test_one_suite_that_fails_fails_all_and_the_others_run_nevertheless(gate, suite):
    folder = {"library": "tests/local", "contract": "tests/contract", "cluster": "tests/cluster"}
    status, output = gate.run("scripts/test.sh", FAILS=folder.get(suite, f"tests/unit/{suite}"))
    assert status == 1
    assert output.count("failed with status 1") == 1 and output.count("s: passed") == len(SUITES) - 1


def test_with_images_they_are_built_from_a_fresh_base_and_then_tested(gate):
    status, output = gate.run("scripts/test.sh", "--images", "-x")
    assert status == 0, output
    assert [call for call in gate.calls if call.startswith(("base-image.sh", "images.sh"))] == [
        "base-image.sh --max-age 7 kfp-hybrid-base:bookworm", "images.sh build", "images.sh test -x",
    ]  # fmt: skip


def test_a_base_that_is_named_is_not_made(gate):
    assert gate.run("scripts/test.sh", "--images", BASE_IMAGE="python:3.11-slim-bookworm")[0] == 0
    assert gate.called("images.sh build") and not gate.called("base-image.sh")


@pytest.mark.parametrize("step", ["base-image.sh", "images.sh build", "images.sh test"])
def test_images_that_cannot_be_built_or_fail_their_tests_fail_the_gate(gate, step):
    status, output = gate.run(".ci/run", FAILS=step)
    assert status == 1
    assert "== images, after" in output and "failed with status 1" in output
    assert not gate.called("images.sh test") or step == "images.sh test"


def test_the_gate_needs_a_docker_and_says_so_at_once(gate):
    status, output = gate.run(".ci/run", FAILS="docker-up.sh")
    assert status == 1
    assert "WITHOUT_IMAGES=1" in output.splitlines()[-1]
    assert not gate.called("python") and not gate.called("check.sh")


def test_the_gate_leaves_the_images_out_when_told_to_and_says_so(gate):
    status, output = gate.run(".ci/run", FAILS="docker-up.sh", WITHOUT_IMAGES="1")
    assert status == 0, output
    assert output.splitlines()[-1].startswith("warning: the images were neither built nor tested")
    assert not gate.called("images.sh") and gate.called("check.sh")


def test_what_the_check_finds_ends_the_gate_before_the_tests(gate):
    assert gate.run(".ci/run", FAILS="check.sh")[0] == 1
    assert not gate.called("python")


@pytest.mark.parametrize("script", ["scripts/test.sh", ".ci/run"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_every_suite_as_ctrl_c_would(gate, script, number):
    process = gate.start(script, HANGS="tests/local")
    wait_for(lambda: (gate.state / "hangs").exists())
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert "python -m pytest tests/unit/authoring tests/local was interrupted" in gate.calls


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_the_scripts_leave_behind_is_nothing(gate, tmp_path):
    environ = {"TMPDIR": str(tmp_path / "temporary")}
    os.mkdir(environ["TMPDIR"])
    assert gate.run("scripts/test.sh", **environ)[0] == 0
    assert os.listdir(environ["TMPDIR"]) == []


def test_the_workflow_of_github_runs_the_gate_with_the_least_rights():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    *actions, room, gate = job["steps"]
    assert gate == {"run": ".ci/run"} and "permissions" not in job
    assert re.fullmatch(
        r"sudo rm -rf( /(usr|opt)(/[\w]+)+)+", room["run"]
    )  # what such a runner brings and nothing here needs
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]) for step in actions)
    assert "secrets." not in str(workflow)
