"""Making one TFLite variant: with TensorFlow's converter, or with ai-edge-quantizer from the float32 variant."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfp_hybrid.edge.litert import SIGNATURE
from kfp_hybrid.step import StepError

if TYPE_CHECKING:
    from ai_edge_quantizer.recipe_manager import RecipeManager

FLOAT32 = "float32"
CONVERTED = (FLOAT32, "dynamic_range", "float16", "int8")
REQUANTIZED = ("aeq_weight_only", "aeq_int8")
QUANTIZATIONS = (*CONVERTED, *REQUANTIZED)
CALIBRATED = ("int8", "aeq_int8")

CALIBRATION_BATCH_ROWS = 100

Inputs = dict[str, np.ndarray]


class ConversionError(Exception):
    """This variant cannot be made; another one may be."""


def convert(frozen: Path, quantization: str, calibration: Inputs) -> bytes:
    """Make one variant with TensorFlow's converter; it holds TFLite's own ops only.

    Args:
        frozen: directory written by `SourceModel.freeze`.
        quantization: one of CONVERTED. "dynamic_range": int8 weights; "float16": float16 weights; "int8": weights and
            activations. Ids stay integers and numbers and scores stay floats in every variant, so that a device feeds
            all alike: LiteRT quantizes the floats itself, and an id must not be quantized.
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
    if quantization != FLOAT32:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ((SIGNATURE, batch) for batch in _batches(calibration))
    try:
        return converter.convert()
    except Exception as error:  # the converter raises its own, and what its C++ code throws
        if ops := _foreign_ops(error):
            raise StepError(
                f"the model needs TensorFlow ops that plain LiteRT does not have: {', '.join(ops)}; "
                "express them in other ops, or do their work in the preprocessing"
            ) from error
        raise _failed("the conversion", error) from error


def requantize(float32: bytes, quantization: str, calibration: Inputs) -> bytes:
    """Make one variant of the float32 variant with ai-edge-quantizer; inputs and scores stay as they are.

    Args:
        float32: the float32 variant.
        quantization: one of REQUANTIZED. "aeq_weight_only": int8 weights, which are turned back into floats when the
            model is loaded or run; "aeq_int8": weights and activations.
        calibration: inputs of representative rows, used by "aeq_int8" only.

    Returns:
        The TFLite file.

    Raises:
        ConversionError: this variant cannot be made.
    """
    from ai_edge_quantizer import Quantizer

    recipe = _recipe(quantization)
    try:
        with _quiet():
            ranges = _calibrate(float32, recipe, calibration) if quantization in CALIBRATED else None
            quantized = Quantizer(float32, recipe.get_quantization_recipe()).quantize(ranges).quantized_model
    except Exception as error:  # it raises whatever its parts do
        raise _failed("ai-edge-quantizer", error) from error
    if quantized is None:
        raise ConversionError("ai-edge-quantizer found nothing to quantize")
    return bytes(quantized)


def _recipe(quantization: str) -> "RecipeManager":
    """What ai-edge-quantizer is to do: everything, except for the model's inputs and outputs."""
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe_manager import RecipeManager

    recipe, everything = RecipeManager(), (".*", TFLOperationName.ALL_SUPPORTED)
    if quantization == "aeq_weight_only":
        recipe.add_weight_only_config(*everything, num_bits=8)
    else:
        recipe.add_static_config(*everything, activation_num_bits=8, weight_num_bits=8)
        for end in (TFLOperationName.INPUT, TFLOperationName.OUTPUT):
            recipe.add_quantization_config(".*", end, algorithm_key=AlgorithmName.NO_QUANTIZE)
    return recipe


def _calibrate(float32: bytes, recipe: "RecipeManager", calibration: Inputs) -> dict[str, Any]:
    """The range of every tensor over all rows.

    `Quantizer.calibrate` would average the ranges of the batches instead. A tensor with one value per row, such as the
    logit of a binary model, has a range of no width in a batch of one row, and the average is far too narrow: the model
    then gives wrong scores, without any error.
    """
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    calibrator = Calibrator(float32, num_threads=os.cpu_count() or 1, qsv_update_func=min_max_update)
    calibrator.calibrate({SIGNATURE: list(_batches(calibration))}, recipe)
    return calibrator.get_model_qsvs()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what ai-edge-quantizer prints and logs about its own steps out of the log."""
    logging.disable(logging.INFO)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _batches(inputs: Inputs) -> Iterator[Inputs]:
    """The rows in batches of one size: TensorFlow's calibration cannot change it. The last two may share rows."""
    rows = len(next(iter(inputs.values())))
    last = max(0, rows - CALIBRATION_BATCH_ROWS)
    for start in [*range(0, last, CALIBRATION_BATCH_ROWS), last]:
        yield {name: values[start : start + CALIBRATION_BATCH_ROWS] for name, values in inputs.items()}


def _failed(what: str, error: Exception) -> ConversionError:
    return ConversionError(f"{what} failed: {' '.join(str(error).split())[:300] or type(error).__name__}")


def _foreign_ops(error: Exception) -> list[str]:
    """Names of the ops that the converter reports as "Flex" or "custom": those TFLite does not have."""
    from tensorflow.compiler.mlir.lite.metrics.converter_error_data_pb2 import ConverterErrorData as Codes

    codes = (Codes.ERROR_NEEDS_FLEX_OPS, Codes.ERROR_NEEDS_CUSTOM_OPS)
    return sorted({found.operator.name for found in getattr(error, "errors", []) if found.error_code in codes})
