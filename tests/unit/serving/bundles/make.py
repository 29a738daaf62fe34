"""Makes the edge bundles beside it, with the interpreter of the image tensorflow:

    kfp-hybrid python tensorflow tests/unit/serving/bundles/make.py

`sum` is a regression whose score is 4 a + b + the id of c: whole numbers come back exactly, so that a test can see
whose answer it got. `late` is a binary model of the same columns. `plain` takes its columns as they are.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from kfp_hybrid.edge.bundle import write_bundle
from kfp_hybrid.edge.model import EdgeModel
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing

COLUMNS = {"a": [1, 2.5, None, -4], "b": [10, None, 30, 40], "c": ["x", "y", None, "unheard of"]}
NUMERIC = [Numeric("a", 0.0, 1.0, 0.0, (0.0, 2.0)), Numeric("b", 0.0, 1.0, 0.0, (20.0,))]
CATEGORICAL = [Categorical("c", "string", ("x", "y", "z"))]


class Core(tf.Module):
    def __init__(self, binary):
        super().__init__()
        self.binary = binary

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "numeric"),
                                  tf.TensorSpec([None, 2], tf.int32, "bucket"),
                                  tf.TensorSpec([None, 1], tf.int32, "categorical")])  # fmt: skip
    def core(self, numeric, bucket, categorical):
        total = numeric[:, :1] * 4.0 + numeric[:, 1:] + tf.cast(categorical + 0 * bucket[:, :1], tf.float32)
        return {"scores": tf.sigmoid(total / 10.0 - 2.0) if self.binary else total}


class Plain(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32, "a"), tf.TensorSpec([None, 1], tf.int32, "n")])
    def core(self, a, n):
        return {"scores": tf.concat([a, tf.cast(n, tf.float32), a * 0.0 + 1.0], axis=1)}


def convert(module):
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"core": module.core})
        return tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["core"]).convert()


def make(folder, module, columns, preprocessing, task, classes):
    files = {
        "model.tflite": convert(module),
        "labels.json": json.dumps({"task": task, "label": "y", "classes": classes}).encode(),
        "samples.json": json.dumps({"rows": columns, "scores": [[0.0]]}).encode(),
    }
    if preprocessing:
        files["preprocessing.json"] = json.dumps(preprocessing.to_dict()).encode()
    bundle = write_bundle(folder, files, quantization="float32")
    scores = EdgeModel(bundle).predict(columns).astype(np.float64).tolist()
    files["samples.json"] = json.dumps({"rows": columns, "scores": scores}).encode()
    write_bundle(folder, files, quantization="float32")


def main(folder):
    for name, task, classes in (("sum", "regression", ()), ("late", "binary", ("no", "yes"))):
        preprocessing = Preprocessing(task, Label("y", classes), tuple(NUMERIC), tuple(CATEGORICAL))
        make(folder / name, Core(task == "binary"), COLUMNS, preprocessing, task, classes)
    make(folder / "plain", Plain(), {"a": [1.5, 2.5], "n": [3, 4]}, None, "multiclass", (7, 8, 9))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
