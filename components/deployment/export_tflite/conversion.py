"""All that needs TensorFlow: the model's own scores, and its conversion into TFLite variants.

`python -m ...conversion <job.json>` does one job and leaves its results in the job's folder. It is a process of its own
because the converter can bring its process down: calibrating int8 crashes when an activation is infinite on one row,
such as the logarithm of 0, even where the model masks it. The results so far survive, and the next variant is tried.

The signature is first frozen into a SavedModel of its own: variables become constants, and whatever else the model
holds (string lookups, other signatures, optimizer state) is left behind. That is not only four times faster than
`TFLiteConverter.from_saved_model(model, signature_keys=["core"])`: in TensorFlow 2.21 the direct way fails on lookup
tables, and for Keras layers inside a tf.Module it gives a model that reads uninitialized variables and answers garbage.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.components.deployment.export_tflite.sampling import sample_rows
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.edge.litert import SCORES, SIGNATURE
from kfp_hybrid.edge.model import plain_inputs
from kfp_hybrid.preprocessing import FILE_NAME
from kfp_hybrid.scoring.saved_model import ServingModel, saved_preprocessing
from kfp_hybrid.step import StepError

QUANTIZATIONS = ("float32", "dynamic_range", "float16", "int8")
CORE_INPUTS = ("numeric", "bucket", "categorical")
REFERENCE_BATCH_ROWS = 8192
CALIBRATION_BATCH_ROWS = 100

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """What to convert, and where to.

    Attributes:
        model: SavedModel directory.
        examples: examples directory.
        split: split whose sample is scored.
        sample_rows: rows of that sample.
        calibration_split: split that the representative rows for int8 come from.
        calibration_rows: how many.
        quantizations: variants to make, in this order.
        folder: where the results go.
    """

    model: str
    examples: str
    split: str
    sample_rows: int
    calibration_split: str
    calibration_rows: int
    quantizations: tuple[str, ...]
    folder: str

    @property
    def reference(self) -> Path:
        """The scores of `serving_default` on the sample, float32 [N, outputs], as .npy."""
        return Path(self.folder) / "reference.npy"

    @property
    def mistake(self) -> Path:
        """Text: why no variant can be made; absent if one can."""
        return Path(self.folder) / "mistake.txt"

    def variant(self, quantization: str) -> Path:
        """The TFLite file of a variant; absent if it could not be made."""
        return Path(self.folder) / f"{quantization}.tflite"

    def failure(self, quantization: str) -> Path:
        """Text: why a variant could not be made."""
        return Path(self.folder) / f"{quantization}.txt"

    def save(self) -> Path:
        """Write the job into its folder and return the file."""
        file = Path(self.folder) / "job.json"
        file.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        return file

    @classmethod
    def load(cls, file: Path) -> "Job":
        """Read a job that `save` wrote."""
        return cls(**json.loads(file.read_text(encoding="utf-8")))


def main(job_file: str) -> None:
    """Do a job; a mistake of the user goes into `Job.mistake`."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s", force=True)
    logging.getLogger("tensorflow").setLevel(logging.WARNING)
    job = Job.load(Path(job_file))
    try:
        run(job)
    except StepError as error:
        job.mistake.write_text(str(error), encoding="utf-8")


def run(job: Job) -> None:
    """Score the sample, then make the variants one after the other.

    Raises:
        StepError: the model or the examples cannot be used at all.
    """
    logging.info("starting TensorFlow")
    model = SourceModel(Path(job.model))
    examples = Examples.open(job.examples)
    if not job.reference.exists():
        _save_whole(job.reference, model.sample_scores(examples, job.split, job.sample_rows))
    frozen = Path(job.folder) / "frozen"
    model.freeze(frozen)
    for quantization in job.quantizations:
        logging.info("converting to %s", quantization)
        calibration: Inputs = {}
        if quantization == "int8":
            calibration = model.inputs(examples, job.calibration_split, job.calibration_rows)
        try:
            _write_whole(job.variant(quantization), convert(frozen, quantization, calibration))
        except ConversionError as error:
            _write_whole(job.failure(quantization), str(error).encode())


class ConversionError(Exception):
    """This variant cannot be made; another one may be."""


class SourceModel(ServingModel):
    """The SavedModel, with the signature that can leave TensorFlow.

    That is `core` for a model with preprocessing constants, and otherwise `serving_default` if its inputs are numeric.

    Raises:
        StepError: it cannot be loaded, or has no such signature.
    """

    def __init__(self, path: Path):
        super().__init__(path, "model")
        self._preprocessing = saved_preprocessing(path)
        if self._preprocessing is None:
            self._require_numeric_inputs()
        elif SIGNATURE not in self._loaded.signatures:
            raise StepError(f"{path} has {FILE_NAME} but no signature {SIGNATURE!r}; train it with train_model")
        self._converted = self._loaded.signatures[SIGNATURE] if self._preprocessing else self._signature
        self._specs: dict[str, Any] = self._converted.structured_input_signature[1]
        if self._preprocessing and (unknown := sorted(set(self._specs) - set(CORE_INPUTS))):
            raise StepError(
                f"the signature {SIGNATURE!r} of the model takes {unknown[0]!r}, which the preprocessing does not make;"
                f" it makes {', '.join(CORE_INPUTS)}"
            )

    def sample_scores(self, examples: Examples, split: str, rows: int) -> np.ndarray:
        """The scores of `serving_default` for a sample of a split, float32 [N, outputs].

        Raises:
            StepError: the model does not take the examples, or its scores are not finite.
        """
        self.require(examples.columns)
        sample = sample_rows(examples, split, rows, self.columns)
        starts = range(0, sample.num_rows, REFERENCE_BATCH_ROWS)
        return np.concatenate([self.score(sample.slice(start, REFERENCE_BATCH_ROWS)) for start in starts])

    def inputs(self, examples: Examples, split: str, rows: int) -> Inputs:
        """The inputs of the converted signature for a sample of a split, made as a device makes them."""
        sample = sample_rows(examples, split, rows, self.columns)
        if self._preprocessing:
            inputs = self._preprocessing.transform(sample)
            return {name: inputs[name] for name in self._specs}
        return plain_inputs(sample, {n: (s.dtype.as_numpy_dtype, s.shape.rank) for n, s in self._specs.items()})

    def freeze(self, directory: Path) -> None:
        """Write the converted signature as a SavedModel that has constants only and the one signature `core`.

        Raises:
            StepError: the signature depends on something that cannot be a constant.
        """
        import tensorflow as tf

        frozen = _constant_function(self._converted)
        inputs, outputs = sorted(self._specs), sorted(self._converted.structured_outputs)  # TensorFlow's own order
        if len(frozen.inputs) != len(inputs):
            raise StepError(
                f"the signature {SIGNATURE!r} of the model uses a lookup table or another resource that LiteRT does not"
                " have; look strings up in serving_default only"
            )
        scores = outputs.index(SCORES) if SCORES in outputs else 0

        @tf.function
        def core(**values: Any) -> Any:
            return {SCORES: frozen(*(values[name] for name in inputs))[scores]}

        specs = {name: tf.TensorSpec(spec.shape, spec.dtype, name) for name, spec in self._specs.items()}
        signature = core.get_concrete_function(**specs)
        tf.saved_model.save(tf.Module(), str(directory), {SIGNATURE: signature})

    def _require_numeric_inputs(self) -> None:
        for name, spec in self._inputs.items():
            if not (spec.dtype.is_floating or spec.dtype.is_integer):
                raise StepError(
                    f"the model's input {name!r} is of type {spec.dtype.name}, which LiteRT cannot take, and there is "
                    f"no assets.extra/{FILE_NAME} to replace it; train with train_model, or export numeric inputs"
                )


def _constant_function(signature: Any) -> Any:
    """The signature as a function with positional inputs and outputs whose variables are constants."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph

    frozen, graph = convert_variables_to_constants_v2_as_graph(signature, lower_control_flow=False)
    for node in graph.node:
        # Keras writes a sum with a vector as BiasAdd, which TFLite has for floats only; ids are often shifted that way.
        if node.op == "BiasAdd" and tf.as_dtype(node.attr["T"].type).is_integer:
            node.op = "AddV2"
            node.attr.pop("data_format", None)
    rewritten = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    ends = [[rewritten.graph.as_graph_element(t.name) for t in tensors] for tensors in (frozen.inputs, frozen.outputs)]
    return rewritten.prune(*ends)


def convert(frozen: Path, quantization: str, calibration: Inputs) -> bytes:
    """Make one TFLite variant; it holds TFLite's own ops only.

    Args:
        frozen: directory written by `SourceModel.freeze`.
        quantization: one of QUANTIZATIONS. "dynamic_range": int8 weights; "float16": float16 weights; "int8": weights
            and activations. Ids stay integers and numbers and scores stay floats in every variant, so that a device
            feeds all alike: LiteRT quantizes the floats itself, and an id must not be quantized.
        calibration: inputs of representative rows, used by "int8" only.

    Returns:
        The TFLite file.

    Raises:
        StepError: the model needs ops that LiteRT does not have, so that no variant can be made.
        ConversionError: this variant cannot be made.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(frozen), signature_keys=[SIGNATURE])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantization != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: _calibration_batches(calibration)
    try:
        return converter.convert()
    except Exception as error:  # the converter raises its own, and what its C++ code throws
        if ops := _foreign_ops(error):
            raise StepError(
                f"the model needs TensorFlow ops that plain LiteRT does not have: {', '.join(ops)}; "
                "express them in other ops, or do their work in the preprocessing"
            ) from error
        raise ConversionError(f"the conversion failed: {' '.join(str(error).split())[:300]}") from error


def _calibration_batches(inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    rows = len(next(iter(inputs.values())))
    for start in range(0, rows, CALIBRATION_BATCH_ROWS):
        yield SIGNATURE, {name: values[start : start + CALIBRATION_BATCH_ROWS] for name, values in inputs.items()}


def _foreign_ops(error: Exception) -> list[str]:
    """Names of the ops that the converter reports as "Flex" or "custom": those TFLite does not have."""
    from tensorflow.compiler.mlir.lite.metrics.converter_error_data_pb2 import ConverterErrorData as Codes

    codes = (Codes.ERROR_NEEDS_FLEX_OPS, Codes.ERROR_NEEDS_CUSTOM_OPS)
    return sorted({found.operator.name for found in getattr(error, "errors", []) if found.error_code in codes})


def _save_whole(file: Path, array: np.ndarray) -> None:
    unfinished = file.with_suffix(".unfinished.npy")
    np.save(unfinished, array)
    unfinished.replace(file)


def _write_whole(file: Path, content: bytes) -> None:
    # A result that exists is complete: the process can end at any point.
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_bytes(content)
    unfinished.replace(file)


if __name__ == "__main__":
    main(sys.argv[1])
