"""The local target: what a user sees of any pipeline, shown with small steps that start in a blink."""

import os
import pty
import re
import signal
import subprocess
import time

import psutil
import pytest
from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def produce(text: str, data: dsl.Output[dsl.Dataset], report: dsl.Output[dsl.HTML]) -> str:
    import pathlib
    import sys

    pathlib.Path(data.path).write_text(text)
    pathlib.Path(report.path).write_text(f"<p>{text}</p>")
    print("interpreter", sys.executable)
    return text


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def read(source: str) -> str:
    return open(source).read()


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def length(data: dsl.Input[dsl.Dataset]) -> int:
    return len(open(data.path).read())


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def refuse(what: str):
    from kfp_hybrid.step import StepError, step

    with step():
        raise StepError(f"{what} is not wanted; give something else")


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def print_much(megabytes: int):
    for _ in range(megabytes):
        print("x" * 1023 * 1024)
    raise SystemExit("the last line")


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def sleep_with_a_child(seconds: int, marker: str):
    import subprocess
    import sys
    import time

    subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds}) # {marker}"])
    print("sleeping", flush=True)
    time.sleep(seconds)


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def kill_itself():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


@dsl.pipeline(name="two-steps")
def two_steps(text: str = "hello"):
    produced = produce(text=text)
    with dsl.If(produced.outputs["Output"] != "skip"):
        length(data=produced.outputs["data"])
    with dsl.Else():
        read(source=text)


@dsl.pipeline(name="reading")
def reading(source: str):
    read(source=source)


@dsl.pipeline(name="refusing")
def refusing(what: str = "that"):
    refused = refuse(what=what)
    read(source=what).after(refused)


@dsl.pipeline(name="printing")
def printing(megabytes: int = 100):
    print_much(megabytes=megabytes)


@dsl.pipeline(name="sleeping")
def sleeping(marker: str):
    sleep_with_a_child(seconds=600, marker=marker)


@dsl.pipeline(name="dying")
def dying():
    kill_itself()


@dsl.pipeline(name="same-component-twice")
def same_component_twice():
    produce(text="a")
    produce(text="b")


def test_a_run_shows_each_step_and_where_the_reports_are(command_line):
    done = command_line("run", command_line.compile(two_steps))
    assert done.returncode == 0, done.stderr
    assert re.search(r"\[1/3\] produce done \d+\.\d s", done.stdout)
    assert "skipped: read" in done.stdout
    report = re.search(r"report of produce: (.+)", done.stdout)[1]
    assert open(report).read() == "<p>hello</p>"


def test_a_step_runs_in_the_environment_of_its_image(command_line):
    command_line("run", command_line.compile(two_steps))
    log = (command_line.runs()[0] / "logs" / "produce.log").read_text()
    assert re.search(r"interpreter .*/environments/deployment-[0-9a-f]{16}/bin/python3", log)


def test_a_second_run_takes_unchanged_steps_from_the_first(command_line):
    package = command_line.compile(two_steps)
    command_line("run", package)
    again = command_line("run", package)
    assert "produce cached" in again.stdout
    assert "length cached" in again.stdout
    assert "produce done" in command_line("run", package, "--no-cache").stdout
    assert "produce done" in command_line("run", package, "-p", "text=other").stdout


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def measure(metrics: dsl.Output[dsl.Metrics]):
    metrics.log_metric("auc", 0.5)


@dsl.pipeline(name="measuring")
def measuring():
    measure()


def test_a_step_that_puts_out_nothing_but_metrics_is_taken_from_an_earlier_run_too(command_line):
    package = command_line.compile(measuring)
    command_line("run", package)
    assert "measure cached" in command_line("run", package).stdout


def test_a_step_whose_input_file_changed_runs_again(command_line):
    package = command_line.compile(reading)
    source = command_line.folder / "data.txt"
    source.write_text("one")
    command_line("run", package, "-p", "source=data.txt")
    assert "read cached" in command_line("run", package, "-p", "source=data.txt").stdout
    source.write_text("two")
    assert "read done" in command_line("run", package, "-p", "source=data.txt").stdout


def test_results_that_were_deleted_are_made_again(command_line):
    package = command_line.compile(two_steps)
    command_line("run", package)
    subprocess.run(["rm", "-r", str(command_line.runs()[0])], check=True)
    done = command_line("run", package)
    assert done.returncode == 0
    assert "produce done" in done.stdout


def test_two_steps_of_one_component_are_told_apart(command_line):
    done = command_line("run", command_line.compile(same_component_twice))
    assert {"produce.log", "produce-2.log"} <= {log.name for log in (command_line.runs()[0] / "logs").iterdir()}
    assert "produce-2 done" in done.stdout


def test_a_pipeline_may_have_the_name_of_its_only_step(command_line):
    @dsl.pipeline(name="read")
    def of_the_same_name():
        read(source="package.yaml")

    done = command_line("run", command_line.compile(of_the_same_name))
    assert done.returncode == 0, done.stderr


def test_a_failing_step_shows_its_last_lines_and_its_log(command_line):
    done = command_line("run", command_line.compile(refusing))
    assert done.returncode == 1
    assert "error: that is not wanted; give something else" in done.stderr
    log = command_line.runs()[0] / "logs" / "refuse.log"
    assert f"step refuse failed; its whole log is {log}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "skipped: read" in done.stdout


def test_a_step_that_is_killed_says_by_what(command_line):
    done = command_line("run", command_line.compile(dying))
    assert done.returncode == 1
    assert "ended by SIGKILL; the kernel does this when memory runs out" in done.stderr


def test_a_step_that_prints_100_mb_is_logged_whole_and_shown_in_brief(command_line):
    done = command_line("run", command_line.compile(printing))
    log = command_line.runs()[0] / "logs" / "print-much.log"
    assert log.stat().st_size > 100 * 1023 * 1024
    assert "the last line" in done.stderr
    assert len(done.stdout) + len(done.stderr) < 100_000


def processes_with(marker):
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(marker in word for word in process.info["cmdline"] or []):
            found.append(process)
    return found


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_a_run_leaves_no_process_behind(command_line, number, status):
    marker = f"marker-{os.getpid()}-{number}"
    run = command_line.start("run", command_line.compile(sleeping), "-p", f"marker={marker}")
    deadline = time.monotonic() + 120
    while not any(f"# {marker}" in " ".join(p.info["cmdline"]) for p in processes_with(marker)):
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    run.send_signal(number)
    output, _ = run.communicate(timeout=120)
    assert run.returncode == status, output
    assert "Traceback" not in output
    deadline = time.monotonic() + 120
    while processes_with(marker):  # what was killed may need a moment to go
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_two_runs_at_once_do_not_collide(command_line):
    package = command_line.compile(two_steps)
    runs = [command_line.start("run", package, "-p", f"text={'x' * n}") for n in range(1, 5)]
    for run in runs:
        output, _ = run.communicate(timeout=300)
        assert run.returncode == 0, output
    assert len(command_line.runs()) == 4


def test_paths_and_values_may_be_unicode(command_line):
    (command_line.folder / "données été").mkdir()
    source = command_line.folder / "données été" / "наше 数据.txt"
    source.write_text("ö")
    done = command_line("run", command_line.compile(reading), "-p", f"source={source}", "-o", "läufe 跑")
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_written_is_refused_in_one_line(command_line):
    (command_line.folder / "file").write_text("")
    done = command_line("run", command_line.compile(two_steps), "-o", "file/runs")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: cannot make the run's folder")
    assert len(done.stderr.splitlines()) == 1


@dsl.container_component
def of_a_foreign_image():
    return dsl.ContainerSpec(image="busybox:1.36", command=["true"])


@dsl.container_component
def of_our_image():
    return dsl.ContainerSpec(image=images.DEPLOYMENT, command=["true"])


@pytest.mark.parametrize(
    ("component", "message"),
    [(of_a_foreign_image, "uses the image busybox:1.36, which has no lock file here"),
     (of_our_image, "is a container component; the local target runs Python components only")],
)  # fmt: skip
def test_a_step_that_cannot_run_here_is_refused_before_anything_runs(command_line, component, message):
    @dsl.pipeline(name="foreign")
    def foreign():
        component()

    done = command_line("run", command_line.compile(foreign))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Run the pipeline on a cluster" in done.stderr
    assert not (command_line.folder / "kfp-hybrid-runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["run", "no_such_pipeline"], "there is no pipeline no_such_pipeline; this collection has: "),
     (["run", "absent.yaml"], "there is no package absent.yaml"),
     (["run", "train_and_publish", "-p", "epochs"], "-p takes NAME=VALUE, not 'epochs'"),
     (["run", "train_and_publish", "-p", "epoch=1"], "did you mean epochs?"),
     (["run", "train_and_publish", "--parameters", "absent.json"], "cannot read absent.json"),
     (["python", "no-image"], "there is no image no-image"),
     (["serve", "--image", "no-image", "models"], "there is no image no-image"),
     (["serve"], "there is no model to serve"),
     (["versions", "absent"], "absent is not a directory"),
     (["rollback", "absent", "1"], "absent is not a directory")],
)  # fmt: skip
def test_a_wrong_call_is_refused_in_one_line(command_line, arguments, message):
    done = command_line(*arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_options_after_the_image_are_for_its_python(command_line):
    assert "--json-lines" in command_line("python", "deployment", "-m", "json.tool", "--help").stdout
    assert "--port-file" in command_line("serve", "--help").stdout


def test_a_terminal_shows_a_live_table(command_line):
    package = command_line.compile(two_steps)
    ours, theirs = pty.openpty()
    environ = {**command_line.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    run = subprocess.Popen(
        [*command_line.program, "run", package], cwd=command_line.folder, env=environ, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # the terminal is closed when the program ends
        pass
    assert run.wait() == 0
    assert "step" in shown.decode() and "skipped" in shown.decode() and "\x1b[" in shown.decode()
