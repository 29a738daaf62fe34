"""A runtime for MLServer with a SavedModel, as its documentation makes them."""

import tensorflow as tf
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class SavedModel(MLModel):
    async def load(self) -> bool:
        self._loaded = tf.saved_model.load(self.settings.parameters.uri)
        self._signature = self._loaded.signatures["serving_default"]
        self._specs = self._signature.structured_input_signature[1]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        inputs = {}
        for tensor in payload.inputs:
            spec = self._specs[tensor.name]
            missing = "" if spec.dtype == tf.string else float("nan")
            inputs[tensor.name] = tf.constant([missing if v is None else v for v in tensor.data.root], spec.dtype)
        scores = self._signature(**inputs)["scores"].numpy()
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("scores", scores)])
