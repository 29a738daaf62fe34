"""The command line with a Kubeflow target."""

import pytest
import yaml
from click.testing import CliRunner

from kfp_hybrid.cli import main
from kfp_hybrid.targets.kubeflow.port_forward import PortForward


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs a command with a target of these settings and returns its exit status and output."""
    config = tmp_path / "kfp-hybrid.toml"
    monkeypatch.setenv("KFP_HYBRID_CONFIG", str(config))

    def run(settings, *arguments):
        config.write_text(f'[targets.onprem]\nkind = "kubeflow"\n{settings}\n')
        result = CliRunner().invoke(main, [*arguments, "--target", "onprem"])
        return result.exit_code, result.output

    return run


@pytest.fixture
def exposed(installation):
    """The settings of a target with a console."""
    return f'host = "{installation.url}"'


@pytest.fixture
def forwarded(installation, monkeypatch):
    """The settings of a target that only a port-forward leads to."""
    monkeypatch.setattr(PortForward, "open", lambda self: installation.url)
    return 'auth = { kind = "kubeconfig" }'


def test_what_is_made_is_shown_with_its_page_in_the_console(installation, exposed, command):
    assert f": {installation.url}/#/runs/details/" in command(exposed, "run", "hello")[1]
    assert f": {installation.url}/#/pipelines/details/" in command(exposed, "register", "hello")[1]
    assert (
        f": {installation.url}/#/recurringrun/details/"
        in command(exposed, "schedule", "hello", "--cron", "0 3 * * *")[1]
    )


def test_custom_resources_have_the_version_that_is_asked_for(exposed, command, tmp_path):
    # The specification of a PipelineVersion cannot be changed: each change of a pipeline needs another version.
    file = tmp_path / "resources.yaml"
    arguments = ("compile", "hello", "-o", str(file), "--version", "1.4.0")
    assert command(exposed, *arguments, "--format", "k8s")[0] == 0
    _, version = yaml.safe_load_all(file.read_text())
    assert (version["metadata"]["name"], version["spec"]["displayName"]) == ("hello-1.4.0", "1.4.0")
    assert command(exposed, *arguments) == (
        1,
        "Error: --version is for --format k8s; `register` takes that of a package\n",
    )


def test_without_a_console_there_is_no_page_to_show(installation, forwarded, command):
    status, output = command(forwarded, "run", "hello")
    (run,) = installation.runs
    assert (status, output) == (0, f"run {run}\n")
    assert command(forwarded, "register", "hello", "--version", "1") == (0, "registered hello, version 1\n")
    status, output = command(forwarded, "schedule", "hello", "--cron", "0 3 * * *")
    (schedule,) = installation.schedules
    assert (status, output) == (0, f"schedule {schedule} (hello, 0 3 * * *)\n")
