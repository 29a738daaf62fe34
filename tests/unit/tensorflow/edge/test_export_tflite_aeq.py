"""ai-edge-quantizer on a model with a one-unit output: right when calibrated here, refused when it goes wrong."""

import numpy as np
import pytest

from kfp_hybrid.components.deployment.export_tflite.quantization import requantize
from kfp_hybrid.edge.model import EdgeModel


def quantize_by_the_book(float32: bytes, calibration: dict[str, np.ndarray]) -> bytes:
    """Static int8 as ai-edge-quantizer documents it: its own calibration, one sample after the other."""
    from ai_edge_quantizer import Quantizer

    rows = len(calibration["numeric"])
    quantizer = Quantizer(float32)
    quantizer.add_static_config(".*", "*", activation_num_bits=8, weight_num_bits=8)
    for end in ("INPUT", "OUTPUT"):
        quantizer.update_quantization_recipe(".*", end, algorithm_key="no_quantize")
    samples = [{name: values[row : row + 1] for name, values in calibration.items()} for row in range(rows)]
    return bytes(quantizer.quantize(quantizer.calibrate({"core": samples})).quantized_model)


def test_its_own_calibration_breaks_a_one_unit_output_without_an_error_and_is_refused(bench):
    variant = bench.measure(quantize_by_the_book(bench.float32, bench.calibration), "aeq_int8")

    assert not variant.failure and np.isfinite(variant.scores).all()  # it runs, and nothing says that it is broken
    assert variant.agreement.flips > 0.1
    assert variant.size < len(bench.float32)
    assert not variant.accepted
    assert any(problem.startswith("share of flipped decisions") for problem in variant.problems), variant.problems


def test_the_same_model_calibrated_by_this_step_is_accepted(bench):
    variant = bench.measure(requantize(bench.float32, "aeq_int8", bench.calibration), "aeq_int8")
    assert variant.accepted, variant.problems


def test_the_order_of_the_rows_does_not_change_the_calibration(bench):
    backwards = {name: values[::-1] for name, values in bench.calibration.items()}
    assert requantize(bench.float32, "aeq_int8", backwards) == requantize(bench.float32, "aeq_int8", bench.calibration)


def test_a_narrow_calibration_is_refused_by_the_step_with_the_reason(case, caplog):
    caplog.set_level("INFO")
    exported = case.export(quantizations=["aeq_int8"], calibration_rows=1)
    assert "rejected: aeq_int8 (mean difference 0." in exported.reason
    assert "share of flipped decisions 0." in exported.reason
    assert exported.metrics.metadata["aeq_int8_accepted"] == 0
    assert exported.accepted and exported.bundle.metadata["quantization"] == "float32"
    assert "converting to aeq_int8" in caplog.text
    assert "Serializing" not in caplog.text and "Quantization Ratio" not in caplog.text  # what the quantizer prints


@pytest.mark.parametrize("quantization", ["aeq_weight_only", "aeq_int8"])
def test_the_bundle_of_such_a_variant_takes_raw_rows(case, quantization):
    exported = case.export(quantizations=[quantization], select=quantization)
    model = EdgeModel.open(exported.bundle.path)
    rows = case.rows(50)
    assert model.bundle.quantization == quantization
    assert model.self_test() == 0
    np.testing.assert_allclose(model.predict(rows), case.scores(rows), atol=0.2)
    assert np.abs(model.predict(rows) - case.scores(rows)).mean() < 0.03
