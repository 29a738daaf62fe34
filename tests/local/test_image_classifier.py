"""The second example, as its page says to start it: 1797 real images of digits, to an int8 model for a device."""

import json
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PARAMETERS = REPOSITORY / "scripts" / "digits.json"

# With the interpreter of the image: the bundle on the images that the model has not been trained on.
JUDGE = """
import json, sys
import numpy as np
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.edge.model import EdgeModel
model, examples = EdgeModel.open(sys.argv[1]), Examples.open(sys.argv[2])
rows = {}
for batch in examples.batches("eval", list(examples.columns)):
    for name, values in batch.to_pydict().items():
        rows.setdefault(name, []).extend(values)
right = np.array(model.decide(rows)) == np.array(rows["digit"])
print(json.dumps({"accuracy": right.mean(), "rows": len(right), "self_test": model.self_test()}))
"""


@pytest.fixture(scope="module")
def published(shared_command_line):
    done = shared_command_line("run", "train_and_publish", "--parameters", PARAMETERS, "-p", "destination=digits")
    assert done.returncode == 0, done.stdout + done.stderr
    return shared_command_line.folder / "digits" / "1"


def test_the_policy_takes_an_int8_model_that_agrees_with_the_trained_one(published):
    manifest = json.loads((published / "edge" / "manifest.json").read_text())
    assert manifest["quantization"] in ("int8", "aeq_int8")
    agreement = manifest["agreement"]
    assert agreement["flip_fraction"] <= 0.01
    assert agreement["metric"] >= 0.96 and agreement["metric_drop"] <= 0.01
    assert (published / "edge" / "model.tflite").stat().st_size < 20_000


def test_the_bundle_reads_images_that_training_has_not_seen(published, shared_command_line):
    (examples,) = shared_command_line.folder.glob("kfp-hybrid-runs/**/ingest-examples/examples")
    judged = shared_command_line("python", "tensorflow", "-c", JUDGE, published / "edge", examples)
    assert judged.returncode == 0, judged.stderr
    result = json.loads(judged.stdout.splitlines()[-1])
    assert result["rows"] > 300
    assert result["accuracy"] >= 0.96
    assert result["self_test"] < 0.01
