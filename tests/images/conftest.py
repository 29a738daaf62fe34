"""The built images: `scripts/images.sh build`, then `scripts/images.sh test`."""

import json
import os
import subprocess

import pytest

from kfp_hybrid import images

SOMEBODY = "54321:54321"  # a user that no image has heard of, as OpenShift picks one for each namespace
RESTRICTED = ["--user", SOMEBODY, "--read-only", "--tmpfs", "/tmp:rw,mode=1777", "--network", "none",
              "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]  # fmt: skip


def run_docker(*arguments, **options):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, **options)


@pytest.fixture(scope="session")
def docker():
    """The docker client as a function."""
    return run_docker


@pytest.fixture(scope="session")
def somebody():
    """A user and group, by number, that no image knows."""
    return SOMEBODY


class Image:
    """One image of the collection, as built."""

    def __init__(self, name):
        self.name = name
        self.reference = images.image(name)

    def inspect(self):
        """What Docker knows of the image."""
        return json.loads(run_docker("image", "inspect", self.reference).stdout)[0]

    def run(self, *command, options=RESTRICTED):
        """Run a command as a restricted pod would, and return what it printed."""
        done = run_docker("run", "--rm", *options, self.reference, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session", params=images.names())
def image(request):
    built = Image(request.param)
    if run_docker("image", "inspect", built.reference).returncode:
        pytest.fail(f"{built.reference} is not built; run: scripts/images.sh build {built.name}")
    return built


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch):
    for variable in [name for name in os.environ if name.startswith("KFP_HYBRID_") and name != "KFP_HYBRID_CACHE"]:
        monkeypatch.delenv(variable)
