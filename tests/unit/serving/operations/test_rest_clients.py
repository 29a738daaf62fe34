"""The real clients over REST, in processes of their own: each has more dependencies than the server."""

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
KSERVE = ROOT / ".cache/kserve-client/bin/python"
COMMAND = ROOT / ".venv/bin/kfp-hybrid"


@pytest.fixture
def url(sums, start, tmp_path):
    sums.publish(tmp_path / "models", 7)
    return start(tmp_path / "models", "--name", "sums").url


def run(*command):
    kept = ("PATH", "HOME", "KFP_HYBRID_CACHE")  # the rest makes this the interpreter of the image serving
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not KSERVE.is_file(), reason=f"there is no {KSERVE}; scripts/test.sh makes it")
def test_the_client_of_kserve_is_answered_in_both_protocols(url):
    run(KSERVE, HERE / "rest_client_kserve.py", url)


@pytest.mark.skipif(not COMMAND.is_file(), reason=f"there is no {COMMAND}; scripts/setup.sh makes it")
def test_answers_are_messages_of_tensorflow_serving(url):
    image = "validation"  # its lock has them
    run(COMMAND, "python", image, HERE / "rest_client_tensorflow_serving.py", url)
