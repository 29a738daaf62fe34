"""A TFLite model on the plain LiteRT interpreter: named inputs, batches of any size."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from kfp_hybrid.step import StepError

SIGNATURE = "core"
SCORES = "scores"


class LiteRTModel:
    """Runs a TFLite model with the signature `core`; plain LiteRT means that it holds no TensorFlow ops.

    Args:
        model: the file, or its content.
        threads: threads of one invocation.

    Raises:
        StepError: the content is not a TFLite model, or not one with the signature `core`.
    """

    def __init__(self, model: bytes | str | os.PathLike[str], threads: int = 1):
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(Path(model))}
        try:
            self._interpreter = Interpreter(num_threads=threads, **source)
            runner = self._interpreter.get_signature_runner(SIGNATURE)
        except (ValueError, RuntimeError) as error:
            raise StepError(f"LiteRT cannot load the model: {_one_line(error)}") from error
        self._inputs: dict[str, dict[str, Any]] = runner.get_input_details()
        self._output: int = runner.get_output_details()[SCORES]["index"]
        self._rows = -1

    @property
    def inputs(self) -> dict[str, tuple[np.dtype, int]]:
        """The inputs by name: their type and their rank, rows included."""
        return {name: (np.dtype(d["dtype"]), len(d["shape"])) for name, d in self._inputs.items()}

    def set_inputs(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Hand over N rows.

        Args:
            inputs: one array [N, ...] for each input.
        """
        rows = len(next(iter(inputs.values())))
        if rows != self._rows:
            for name, detail in self._inputs.items():
                self._interpreter.resize_tensor_input(detail["index"], inputs[name].shape)
            self._interpreter.allocate_tensors()
            self._rows = rows
        for name, detail in self._inputs.items():
            self._interpreter.set_tensor(detail["index"], np.ascontiguousarray(inputs[name], detail["dtype"]))

    def invoke(self) -> None:
        """Run the model on the rows that were handed over."""
        self._interpreter.invoke()

    def scores(self) -> np.ndarray:
        """The scores of the last invocation, float32 [N, outputs]."""
        return self._interpreter.get_tensor(self._output).astype(np.float32).reshape(self._rows, -1)

    def predict(self, inputs: Mapping[str, np.ndarray], batch_size: int = 1024) -> np.ndarray:
        """Scores of N rows, N >= 1, some rows at a time so that memory is bounded.

        Args:
            inputs: one array [N, ...] for each input.
            batch_size: largest number of rows of one invocation.

        Returns:
            float32 [N, outputs].
        """
        rows = len(next(iter(inputs.values())))
        batches = []
        for start in range(0, rows, batch_size):
            self.set_inputs({name: values[start : start + batch_size] for name, values in inputs.items()})
            self.invoke()
            batches.append(self.scores())
        return np.concatenate(batches)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
