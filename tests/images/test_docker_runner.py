"""`--runner docker`: what a step sees, how failures show, and that no container is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kfp import compiler, dsl

from kfp_hybrid import images

PROGRAM = str(Path(sys.executable).with_name("kfp-hybrid"))


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def look(path: str, written: dsl.Output[dsl.Artifact]) -> str:
    """Read a file, and say what else this step may do."""
    import os
    import socket

    def may(action) -> bool:
        try:
            action()
        except OSError:
            return False
        return True

    with open(written.path, "w") as file:
        file.write(open(path).read())
    rights = {
        "capabilities": next(line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")),
        "writes its input": may(lambda: open(path, "a")),
        "writes the system": may(lambda: open("/opt/venv/a", "w")),
        "has a network": may(lambda: socket.create_connection(("192.0.2.1", 80), 1)),
        "sees the environment": "KFP_HYBRID_TEST_SECRET" in os.environ,
    }
    return str(rights)


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def fail(status: int) -> str:
    """End with a status, at once."""
    import os
    import sys

    print("about to fail", file=sys.stderr, flush=True)
    os._exit(status)


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def wait() -> str:
    """Run until it is stopped."""
    import time

    print("waiting", flush=True)
    time.sleep(600)
    return "never"


@dsl.component(base_image="registry.invalid/nothing:1", install_kfp_package=False)
def nowhere() -> str:
    """Has an image that is nowhere."""
    return ""


@pytest.fixture
def start(tmp_path):
    """Starts a pipeline of one component in a folder of its own."""
    folder = tmp_path / "project"
    folder.mkdir()

    def started(component, *options, environ={}):
        compiler.Compiler().compile(component, str(folder / "package.yaml"))
        command = [PROGRAM, "run", "package.yaml", "--runner", "docker", *options]
        environ = {**os.environ, "KFP_HYBRID_CACHE": str(tmp_path / "cache"), **environ}
        return subprocess.Popen(
            command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return started


@pytest.fixture
def run(start):
    def ran(component, *options, **settings):
        process = start(component, *options, **settings)
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    return ran


@pytest.fixture
def containers(docker, tmp_path):
    """Lists the containers of this test: those that see its folder. Others may come and go meanwhile."""
    return lambda: docker("ps", "--all", "--quiet", "--filter", f"volume={tmp_path / 'project'}").stdout.split()


def left_behind(containers):
    """Docker goes on listing a container for a moment while it removes it."""
    deadline = time.monotonic() + 120
    while (left := containers()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_a_step_sees_its_inputs_and_has_no_rights_beyond(run, tmp_path):
    """The input lies outside of the working folder, so it is shown to the step, to read."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "input.txt").write_text("seen")
    path = str(tmp_path / "elsewhere" / "input.txt")
    status, output, errors = run(look, "-p", f"path={path}", environ={"KFP_HYBRID_TEST_SECRET": "1"})
    assert status == 0, errors
    assert next(tmp_path.rglob("look/written")).read_text() == "seen"
    for right in ("writes its input", "writes the system", "has a network", "sees the environment"):
        assert f"'{right}': False" in output
    assert f"'capabilities': '{0:016x}'" in output


def test_a_relative_path_means_the_same_as_outside(run, tmp_path):
    (tmp_path / "project" / "input.txt").write_text("seen too")
    status, _, errors = run(look, "-p", "path=input.txt")
    assert status == 0, errors
    assert next(tmp_path.rglob("look/written")).read_text() == "seen too"


def test_an_unchanged_step_is_taken_from_the_last_run(run, tmp_path):
    (tmp_path / "project" / "input.txt").write_text("once")
    assert "look done" in run(look, "-p", "path=input.txt")[1]
    assert "look cached" in run(look, "-p", "path=input.txt")[1]
    (tmp_path / "project" / "input.txt").write_text("twice!")
    assert "look done" in run(look, "-p", "path=input.txt")[1]


@pytest.mark.parametrize("code", [1, 3, 137])
def test_a_step_that_fails_at_once_fails_the_run_and_shows_its_log(run, containers, code):
    """kfp's own handler takes a container that has vanished before it is asked for one that succeeded."""
    status, _, errors = run(fail, "-p", f"status={code}")
    assert status == 1
    assert "about to fail" in errors and "step fail failed" in errors
    assert not left_behind(containers)


def test_an_interrupted_run_leaves_no_container_behind(start, containers):
    process = start(wait)
    deadline = time.monotonic() + 120
    while not containers():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert not left_behind(containers)


def test_an_image_that_is_nowhere_is_named_in_one_line(run):
    status, _, errors = run(nowhere)
    assert status == 1
    assert errors.count("\n") == 1 and errors.lower().startswith("error")
    assert "registry.invalid/nothing:1" in errors


def test_without_docker_one_line_says_what_to_do(run):
    status, _, errors = run(look, "-p", "path=input.txt", environ={"DOCKER_HOST": "unix:///nonexistent/docker.sock"})
    assert status == 1
    assert errors.count("\n") == 1
    assert "Docker does not answer" in errors and "docker-up.sh" in errors
