"""Real runs on this machine, through the command line that a user has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kfp import compiler

from kfp_hybrid.cli.options import cache_folder


class CommandLine:
    """`kfp-hybrid` in a folder of its own, with a step cache of its own."""

    program = (str(Path(sys.executable).with_name("kfp-hybrid")),)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        cache = folder / "cache"
        cache.mkdir()
        # Environments take minutes to make, so all tests share the user's; nothing else is shared.
        (cache_folder() / "environments").mkdir(parents=True, exist_ok=True)
        (cache / "environments").symlink_to(cache_folder() / "environments")
        self.environ = {**os.environ, "KFP_HYBRID_CACHE": str(cache), "PYTHONUNBUFFERED": "1"}

    def compile(self, pipeline, name="package.yaml"):
        compiler.Compiler().compile(pipeline, str(self.folder / name))
        return name

    def __call__(self, *arguments, **options):
        return subprocess.run(
            [*self.program, *map(str, arguments)],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=900, **options,
        )  # fmt: skip

    def start(self, *arguments):
        return subprocess.Popen(
            [*self.program, *map(str, arguments)],
            cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def runs(self):
        return sorted((self.folder / "kfp-hybrid-runs").iterdir())


@pytest.fixture
def command_line(tmp_path):
    return CommandLine(tmp_path)


@pytest.fixture(scope="module")
def shared_command_line(tmp_path_factory):
    """One command line for a module's tests, so that later runs find the earlier ones' results."""
    return CommandLine(tmp_path_factory.mktemp("shared"))
