"""How variants are compared, judged and selected; no conversion."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from kfp_hybrid.components.deployment.export_tflite.agreement import compare
from kfp_hybrid.components.deployment.export_tflite.latency import Latency
from kfp_hybrid.components.deployment.export_tflite.outputs import describe_metrics
from kfp_hybrid.components.deployment.export_tflite.report import histogram, log_axis, spread
from kfp_hybrid.components.deployment.export_tflite.request import POLICIES, Limits
from kfp_hybrid.components.deployment.export_tflite.variants import Check, Variant, _checks, explain, select

probabilities = npst.arrays(np.float32, st.tuples(st.integers(1, 60), st.just(1)), elements=st.floats(0, 1, width=32))


@given(scores=probabilities, task=st.sampled_from(["binary", "regression"]))
def test_a_model_agrees_with_itself(scores, task):
    labels = (np.arange(len(scores)) % 2).astype(float)
    agreement = compare(scores, scores, task, labels)
    assert agreement.mean_difference == agreement.max_difference == 0
    assert agreement.flips == (0 if task == "binary" else None)
    assert agreement.correlation is None or agreement.correlation == pytest.approx(1)
    assert agreement.metric_drop in (None, 0)


@given(reference=probabilities, seed=st.integers(0, 1000))
def test_the_mean_is_no_larger_than_the_maximum_and_flips_are_a_share(reference, seed):
    scores = np.random.default_rng(seed).random(reference.shape, np.float32)
    agreement = compare(reference, scores, "binary", None)
    assert 0 <= agreement.mean_difference <= agreement.max_difference <= 1
    assert 0 <= agreement.flips <= 1
    assert agreement.correlation is None or -1 - 1e-9 <= agreement.correlation <= 1 + 1e-9
    assert agreement.metric is agreement.metric_drop is None


@given(factor=st.floats(0.01, 1000), seed=st.integers(0, 100))
def test_differences_of_a_regression_do_not_depend_on_the_unit(factor, seed):
    rng = np.random.default_rng(seed)
    reference, noise = rng.normal(0, 1, (2, 50, 1)).astype(np.float32)
    one = compare(reference, reference + noise, "regression", None)
    other = compare(reference * factor, (reference + noise) * factor, "regression", None)
    assert other.mean_difference == pytest.approx(one.mean_difference, rel=1e-4)


def test_numbers_of_a_small_comparison():
    reference, scores = np.float32([[0.1], [0.4], [0.6], [0.9]]), np.float32([[0.1], [0.6], [0.5], [0.9]])
    agreement = compare(reference, scores, "binary", np.array([0, 1, 1, np.nan]))
    assert agreement.mean_difference == pytest.approx(0.075)
    assert agreement.max_difference == pytest.approx(0.2)
    assert agreement.flips == 0.25
    assert (agreement.reference_metric, agreement.metric) == (1, 1)

    swapped = compare(reference, scores[[1, 0, 2, 3]], "binary", np.array([0, 1, 1, np.nan]))
    assert swapped.metric == 0 and swapped.metric_drop == 1


def test_the_difference_of_a_row_with_several_scores_is_the_largest_one():
    reference = np.float32([[0.2, 0.5, 0.3], [0.1, 0.1, 0.8]])
    agreement = compare(reference, np.float32([[0.2, 0.35, 0.45], [0.1, 0.1, 0.8]]), "multiclass", np.array([1.0, 2.0]))
    assert agreement.differences == pytest.approx([0.15, 0])
    assert (agreement.flips, agreement.reference_metric, agreement.metric, agreement.metric_drop) == (0.5, 1, 0.5, 0.5)


def test_a_growing_error_is_a_worse_metric_of_a_regression():
    labels = np.array([1.0, 2.0, 3.0])
    agreement = compare(np.float32([[2], [3], [4]]), np.float32([[2], [3], [5]]), "regression", labels)
    assert agreement.metric_drop == pytest.approx(1 / 3)


def test_a_metric_that_labels_do_not_define_is_left_out():
    scores = np.float32([[0.1], [0.9]])
    for labels in (None, np.array([np.nan, np.nan]), np.array([1.0, 1.0])):
        assert compare(scores, scores, "binary", labels).metric_drop is None


def test_a_constant_output_is_noticed_though_positives_are_rare():
    # All scores near zero: a variant that always says zero has a small mean difference and flips nothing.
    reference = np.random.default_rng(0).beta(0.5, 200, (5000, 1)).astype(np.float32)
    agreement = compare(reference, np.zeros_like(reference), "binary", None)
    checks = _checks(agreement, Latency(1, 1, 1), 1, Limits(mean_difference=0.03, flip_fraction=0.03, metric_drop=0.01))
    assert [check.name for check in checks if not check.kept] == ["correlation"]


def test_limits_on_latency_and_size_apply_only_when_they_are_given():
    scores = np.float32([[0.1], [0.9]])
    agreement, latency = compare(scores, scores, "binary", None), Latency(p50=100, p99=2000, quiet=100)
    limits = {"mean_difference": 0.1, "flip_fraction": 0.1, "metric_drop": 0.1}
    assert all(check.kept for check in _checks(agreement, latency, 5000, Limits(**limits)))
    strict = _checks(agreement, latency, 5000, Limits(**limits, latency_ms=1.9, size_bytes=4999))
    assert [str(check) for check in strict if not check.kept] == [
        "p99 latency in ms 2 is above 1.9",
        "size in bytes 5,000 is above 4,999",
    ]


@given(value=st.floats(-10, 10), limit=st.floats(-10, 10))
def test_a_limit_may_just_be_reached(value, limit):
    assert Check("x", limit, limit).kept and Check("x", limit, limit, at_most=False).kept
    assert Check("x", value, limit).kept or Check("x", value, limit, at_most=False).kept


def variant(name: str, size: int, p50: float, difference: float, accepted: bool = True) -> Variant:
    scores = np.float32([[0.2], [0.8]])
    agreement = compare(scores, scores + np.float32(difference), "binary", None)
    checks = (Check("mean difference", agreement.mean_difference, 1.0 if accepted else -1.0),)
    latency = dict.fromkeys((1, 2), Latency(1.5 * p50, 2 * p50, p50))
    return Variant(name, bytes(size), "", agreement, latency, scores, checks)


VARIANTS = [
    variant("float32", 4000, 20, 0),
    variant("float16", 2000, 30, 0.001),
    variant("dynamic_range", 1010, 10, 0.01),
    variant("int8", 1000, 9.9, 0.1),
]
NAMES = [v.quantization for v in VARIANTS]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("smallest", "dynamic_range"),  # 1 % larger than int8, and ten times closer to the SavedModel
        ("fastest", "int8"),  # 1 % faster than dynamic_range, which is 1 % larger
        ("most-accurate", "float32"),
        ("int8", "int8"),
    ],
)
def test_the_policy_selects(policy, expected):
    assert select(VARIANTS, policy, NAMES).quantization == expected


def test_the_fastest_is_the_smallest_of_those_within_the_noise():
    fast, small = variant("float32", 4000, 10, 0), variant("int8", 1000, 10.9, 0.01)
    assert select([fast, small], "fastest", ["float32", "int8"]) is small
    slower = variant("int8", 1000, 11.1, 0.01)
    assert select([fast, slower], "fastest", ["float32", "int8"]) is fast


@given(noise=st.lists(st.floats(1, 1.09), min_size=4, max_size=4))
def test_noise_does_not_change_which_is_the_fastest(noise):
    times = [v.latency[1].quiet * factor for v, factor in zip(VARIANTS, noise)]
    measured = [variant(v.quantization, v.size, time, 0) for v, time in zip(VARIANTS, times)]
    assert select(measured, "fastest", NAMES).quantization == "int8"


@given(
    costs=st.lists(st.tuples(st.integers(1, 5000), st.floats(1, 100), st.floats(0, 0.2), st.booleans()), max_size=4),
    policy=st.sampled_from(POLICIES),
)
def test_what_is_selected_is_accepted_and_near_the_best(costs, policy):
    variants = [variant(f"v{i}", *cost) for i, cost in enumerate(costs)]
    accepted = [v for v in variants if v.accepted]
    selected = select(variants, policy, [v.quantization for v in variants])
    assert (selected is None) == (not accepted)
    if selected:
        assert selected in accepted
        cost, slack = {
            "smallest": (lambda v: v.size, 1.05),
            "fastest": (lambda v: v.latency[1].quiet, 1.1),
            "most-accurate": (lambda v: v.agreement.mean_difference, 1),
        }[policy]
        assert cost(selected) <= slack * min(map(cost, accepted))


def test_the_wanted_variant_is_never_replaced_by_another_one():
    variants, names = [variant("float32", 1, 1, 0), variant("int8", 1, 1, 0.3, accepted=False)], ["float32", "int8"]
    assert select(variants, "int8", names) is None
    assert explain(variants, None, "int8", names, "eval").startswith(
        "rejected: int8 does not keep its limits: int8 (mean diff"
    )
    assert explain(variants[1:], None, "fastest", names, "eval").startswith(
        "rejected: no variant keeps its limits: int8 (mean"
    )
    assert select(variants, "smallest", names).quantization == "float32"


@pytest.mark.parametrize("policy", POLICIES)
def test_float32_is_the_last_resort_of_a_policy_and_no_competitor(policy):
    float32 = variant("float32", 1, 1, 0)
    good, bad = variant("int8", 9, 9, 0.1), variant("int8", 9, 9, 0.1, accepted=False)
    assert select([float32, good], policy, ["int8"]) is good
    assert select([float32, bad], policy, ["int8"]) is float32
    assert select([float32, bad], "int8", ["int8"]) is None


def test_the_reason_is_one_sentence_with_the_numbers():
    rejected = Variant("int8", failure="the converter crashed")
    reason = explain([*VARIANTS[:3], rejected], VARIANTS[2], "smallest", NAMES, "eval")
    assert reason.startswith("accepted: dynamic_range, among the smallest of 3 accepted, 1,010 bytes, p50 15 µs")
    assert reason.endswith("; rejected: int8 (the converter crashed)")
    assert "on 2 rows of eval; other sizes: float32 " in reason
    assert "\n" not in reason


def test_metrics_are_plain_finite_numbers():
    metrics = describe_metrics([*VARIANTS, Variant("float16", failure="broken")], VARIANTS[0])
    assert metrics["accepted"] == 1 and metrics["selected"] == "float32" and metrics["int8_size_bytes"] == 1000
    assert metrics["float16_accepted"] == 0
    for name, value in metrics.items():
        assert type(value) in (int, float, str), name
        assert isinstance(value, str) or math.isfinite(value), name


@given(differences=npst.arrays(np.float64, st.integers(1, 100), elements=st.floats(0, 1e6)))
def test_every_row_is_in_the_histogram_of_differences(differences):
    drawn = histogram(differences)
    assert len(drawn["edges"]) == len(drawn["shares"]) + 1
    assert sum(drawn["shares"]) == pytest.approx(1)


@given(powers=st.lists(st.floats(-12, 12), max_size=5))
def test_a_logarithmic_axis_holds_its_values_and_at_least_a_decade(powers):
    axis = log_axis(powers, 0, 100)
    assert axis.high >= axis.low + 1 and axis.ticks == tuple(range(axis.low, axis.high + 1))
    assert all(axis.low <= power <= axis.high for power in powers)


@given(places=st.lists(st.floats(0, 200), max_size=12))
def test_labels_keep_their_order_and_do_not_overlap(places):
    moved = spread(places, 13, 200)
    assert all(place <= 200 for place in moved)
    order = sorted(range(len(places)), key=places.__getitem__)
    assert all(moved[b] - moved[a] >= 13 - 1e-9 for a, b in itertools.pairwise(order))
