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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kfp_hybrid.components.deployment.export_tflite.quantization import (
    CALIBRATED,
    FLOAT32,
    REQUANTIZED,
    ConversionError,
    Inputs,
    convert,
    requantize,
)
from kfp_hybrid.components.deployment.export_tflite.sampling import sample_rows
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.edge.litert import SCORES, SIGNATURE
from kfp_hybrid.edge.model import plain_inputs
from kfp_hybrid.preprocessing import FILE_NAME
from kfp_hybrid.scoring.saved_model import ServingModel, saved_preprocessing
from kfp_hybrid.step import StepError

CORE_INPUTS = ("numeric", "bucket", "categorical")
REFERENCE_BATCH_ROWS = 8192


@dataclass(frozen=True)
class Job:
    """What to convert, and where to.

    Attributes:
        model: SavedModel directory.
        examples: examples directory.
        split: split whose sample is scored.
        sample_rows: rows of that sample.
        calibration_split: split that the representative rows for quantized activations come from.
        calibration_rows: how many.
        quantizations: variants to make, in this order; float32 comes before those made of it.
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
        try:
            _write_whole(job.variant(quantization), _make(job, quantization, frozen, model, examples))
        except ConversionError as error:
            _write_whole(job.failure(quantization), str(error).encode())


def _make(job: Job, quantization: str, frozen: Path, model: "SourceModel", examples: Examples) -> bytes:
    calibration: Inputs = {}
    if quantization in CALIBRATED:
        calibration = model.inputs(examples, job.calibration_split, job.calibration_rows)
    if quantization not in REQUANTIZED:
        return convert(frozen, quantization, calibration)
    if not job.variant(FLOAT32).exists():
        raise ConversionError(f"it is made of {FLOAT32}, which could not be made")
    return requantize(job.variant(FLOAT32).read_bytes(), quantization, calibration)


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
