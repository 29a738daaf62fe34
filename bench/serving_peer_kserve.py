"""KServe's Python ModelServer with a SavedModel, as its examples do it: `python serving_peer_kserve.py MODEL PORT`."""

import sys

import kserve
import tensorflow as tf


class SavedModel(kserve.Model):
    def __init__(self, path: str) -> None:
        super().__init__("model")
        self._loaded = tf.saved_model.load(path)
        self._signature = self._loaded.signatures["serving_default"]
        self._specs = self._signature.structured_input_signature[1]
        self.ready = True

    def predict(self, payload: dict, headers: dict | None = None) -> dict:
        rows = payload["instances"]
        inputs = {}
        for name, spec in self._specs.items():
            missing = "" if spec.dtype == tf.string else float("nan")
            values = [missing if row[name] is None else row[name] for row in rows]
            inputs[name] = tf.constant(values, spec.dtype)
        return {"predictions": self._signature(**inputs)["scores"].numpy().ravel().tolist()}


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=int(sys.argv[2]), workers=1, enable_grpc=False, access_log_format=None)
    server.start([SavedModel(sys.argv[1])])
