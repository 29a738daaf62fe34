"""Recorded requests are read by the steps that make statistics of examples and validate them, as they are."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from kfp_hybrid.serving.recorded import Recorded
from kfp_hybrid.serving.recording import Limits, Recorder

ROOT = Path(__file__).parents[4]
COMMAND = ROOT / ".venv/bin/kfp-hybrid"

# Runs with the interpreter of the image validation.
SCRIPT = """
import json, sys
from kfp_hybrid.components.data_validation.generate_statistics.generate import (
    STATISTICS_FILE, Request, generate_statistics
)
from tensorflow_metadata.proto.v0 import statistics_pb2

examples, statistics = sys.argv[1:]
generate_statistics(examples, statistics, Request())
found = statistics_pb2.DatasetFeatureStatisticsList.FromString(open(statistics + "/" + STATISTICS_FILE, "rb").read())
(split,) = found.datasets
print(json.dumps([split.name, split.num_examples, {
    feature.path.step[0]: [feature.type, (feature.num_stats or feature.string_stats).common_stats.num_missing]
    for feature in split.features
}]))
"""


@pytest.mark.skipif(not COMMAND.is_file(), reason=f"there is no {COMMAND}; scripts/setup.sh makes it")
def test_statistics_are_made_of_recorded_requests(sums, tmp_path):
    servable = sums.load(tmp_path / "models", 7)
    recorder = Recorder(Recorded(str(tmp_path / "log"), "sums"), Limits(seconds=3600))
    recorder.start()
    for i in range(50):
        recorder.observe(sums.served(servable, [i, None], ["red", "blue"], key=f"user-{i}"))
    recorder.close(60)
    (folder,) = (tmp_path / "log").iterdir()
    kept = ("PATH", "HOME", "KFP_HYBRID_CACHE")  # the rest makes this the interpreter of the image serving
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    command = [COMMAND, "python", "validation", "-c", SCRIPT, folder, tmp_path / "statistics"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    name, rows, features = json.loads(result.stdout.splitlines()[-1])
    assert (name, rows) == ("serving", 100)
    assert features["x"] == [1, 50]  # FLOAT
    assert set(features) == {
        "x", "colour", "predicted_at", "request_key", "predicted", "model_version"
    }  # fmt: skip
