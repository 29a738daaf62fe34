"""What other commands know of runs on this machine: list, look at logs, watch and cancel them from another terminal."""

import os
import signal
import time

import psutil
import pytest
from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def wait(marker: str, seconds: int):
    import time

    print("waiting for", marker, flush=True)
    time.sleep(seconds)


@dsl.pipeline(name="waiting")
def waiting(marker: str, seconds: int = 600):
    wait(marker=marker, seconds=seconds)


@pytest.fixture
def run_under_way(command_line):
    """A run that has begun its only step."""
    package = command_line.compile(waiting)
    process = command_line.start("run", package, "-p", f"marker={command_line.folder.name}")
    deadline = time.monotonic() + 120
    while not any("waiting" in log.read_text() for log in command_line.folder.glob("kfp-hybrid-runs/*/logs/wait.log")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    yield command_line, process, command_line.runs()[0].name
    process.kill()
    process.wait()
    for left in steps_of(command_line):
        left.kill()


def steps_of(command_line):
    """The processes of steps that are still there."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if process.pid != os.getpid() and any(command_line.folder.name in word for word in words[3:]):
            found.append(process)
    return found


def test_a_run_is_listed_while_it_goes_on_and_its_log_can_be_read(run_under_way):
    command_line, _, run = run_under_way
    listed = command_line("runs")
    assert run in listed.stdout and "running" in listed.stdout
    log = command_line("logs", run)
    assert log.returncode == 0 and f"waiting for {command_line.folder.name}" in log.stdout


def test_cancel_stops_the_step_and_the_run(run_under_way):
    command_line, process, run = run_under_way
    cancelled = command_line("cancel", run)
    assert cancelled.returncode == 0, cancelled.stderr
    assert process.wait(120) == 128 + signal.SIGTERM
    assert not steps_of(command_line)
    assert "cancelled" in command_line("runs").stdout
    again = command_line("cancel", run)
    assert again.returncode == 0 and "had cancelled already" in again.stdout


def test_a_run_whose_process_was_killed_has_failed(run_under_way):
    command_line, process, run = run_under_way
    process.kill()
    process.wait()
    watched = command_line("watch", run)
    assert watched.returncode == 1
    assert "its process was killed" in watched.stdout


def test_watching_a_run_ends_with_the_run(command_line):
    package = command_line.compile(waiting)
    process = command_line.start("run", package, "-p", "marker=short", "-p", "seconds=3")
    while not list(command_line.folder.glob("kfp-hybrid-runs/*/run.json")):
        time.sleep(0.1)
    watched = command_line("watch", command_line.runs()[0].name)
    assert process.wait(120) == 0
    assert watched.returncode == 0, watched.stderr
    assert "succeeded" in watched.stdout


def test_hello_proves_that_steps_run(command_line):
    done = command_line("run", "hello", "-p", "second=you")
    assert done.returncode == 0, done.stderr
    assert "reverse: uoy olleh" in done.stdout


def test_doctor_with_run_submits_hello(command_line):
    done = command_line("doctor", "local", "--run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hello succeeded" in done.stdout


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["logs", "nothing-1"], "there is no run nothing-1 in kfp-hybrid-runs; `kfp-hybrid runs` lists them"),
        (["cancel", "nothing-1"], "there is no run nothing-1"),
        (["watch", "nothing-1"], "there is no run nothing-1"),
        (["schedule", "hello", "--cron", "0 3 * * *"], "call `kfp-hybrid run` from cron"),
        (["register", "hello"], "register with a kubeflow or vertex target"),
        (["run", "hello", "--target", "locale"], "did you mean local?"),
        (["doctor", "moon"], "there is no target moon in the built-in profiles"),
        (["compile", "hello", "-o", "/proc/no/package.yaml"], "cannot write /proc/no/package.yaml"),
        (["compile", "mine.py", "-o", "package.yaml"], "there is no file mine.py"),
        (["compile", "hello", "--format", "k8s", "-o", "p.yaml"], "--format k8s is for kubeflow targets"),
        (["run", "goodbye"], "there is no pipeline goodbye; this collection has: deploy, hello"),
    ],
)
def test_a_mistake_is_one_line(command_line, command, complaint):
    done = command_line(*command)
    assert done.returncode == 1
    assert complaint in " ".join(done.stderr.split())
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_pipeline_in_a_file_of_ones_own_runs(command_line):
    (command_line.folder / "mine.py").write_text(
        "from kfp import dsl\n"
        "from kfp_hybrid.pipelines.hello import concatenate\n"
        "def mine(target):\n"
        "    @dsl.pipeline(name='mine')\n"
        "    def pipeline(text: str = 'abc'):\n"
        "        target.configure(concatenate(first=text, second='d'), retries=1, timeout_seconds=60)\n"
        "    return pipeline\n"
    )
    done = command_line("run", "mine.py")
    assert done.returncode == 0, done.stderr
    assert "concatenate: abc d" in done.stdout


def test_a_file_without_the_function_is_refused(command_line):
    (command_line.folder / "mine.py").write_text("def yours(target): ...\n")
    done = command_line("run", "mine.py")
    assert done.returncode == 1
    assert "has no function mine(target) that returns a pipeline" in done.stderr
