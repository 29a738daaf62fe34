"""A docker client that keeps its images in files and records what it is asked for."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from kfp_hybrid import images
from kfp_hybrid.bundle import third_party

MANIFESTS = Path(__file__).parents[4] / "manifests"


class FakeDocker:
    """What the client of fake_docker.py has, and was asked for."""

    def __init__(self, state):
        self.state = state

    def read(self, name):
        file = self.state / name
        return json.loads(file.read_text()) if file.exists() else {}

    def have(self, reference, content="content"):
        (self.state / "images.json").write_text(json.dumps({**self.read("images.json"), reference: content}))

    def offer(self, reference, content="content"):
        (self.state / "registry.json").write_text(json.dumps({**self.read("registry.json"), reference: content}))

    def become_empty(self):
        """As on another machine."""
        for file in self.state.iterdir():
            file.unlink()

    def calls(self, command=""):
        file = self.state / "calls"
        return [line for line in file.read_text().splitlines() if line.startswith(command)] if file.exists() else []

    def forget_calls(self):
        (self.state / "calls").unlink(missing_ok=True)

    def will(self, fault):
        (self.state / fault).touch()


def install(folder):
    """A client of its own; use it by setting its variables."""
    state, program = folder / "docker-state", folder / "bin" / "docker"
    state.mkdir()
    program.parent.mkdir()
    source = Path(__file__).with_name("fake_docker.py").read_text()
    program.write_text(source.replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
    program.chmod(0o755)
    return FakeDocker(state), {"DOCKER": str(program), "FAKE_DOCKER": str(state)}


@pytest.fixture
def docker(tmp_path, monkeypatch):
    fake, variables = install(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return fake


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A bundle of all that belongs into one, made once through the command line; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    fake, variables = install(folder)
    for name in images.names():
        fake.have(images.image(name), f"the image {name}")
    for other in third_party.read(MANIFESTS / "images.yaml"):
        fake.offer(other.reference, other.name)
    create = [sys.executable, "-m", "kfp_hybrid.cli", "bundle", "create", "-o", str(folder / "bundle")]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("KFP_HYBRID_")}
    done = subprocess.run(create, env=environ | variables, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return Made(folder / "bundle", create, environ | variables, done.stdout)


@dataclass
class Made:
    folder: Path
    command: list
    environ: dict
    output: str
