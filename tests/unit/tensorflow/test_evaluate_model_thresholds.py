import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.components.evaluation.evaluate_model.thresholds import (
    DEFAULTS,
    KEYS,
    Measurement,
    Threshold,
    distinct,
    judge,
    parse_thresholds,
    reason,
    worst_first,
)
from kfp_hybrid.scoring.metrics import METRICS
from kfp_hybrid.step import StepError


def group(auc, name="", rows=1000, baseline=None, conclusive=True, **metrics):
    column, _, value = name.partition("=")
    before = None if baseline is None else dict.fromkeys(METRICS["binary"], baseline)
    measured = {**dict.fromkeys(METRICS["binary"], 0.5), "auc": auc, **metrics}
    return Measurement(name, column, value, rows, measured, before, (0.0, 1.0), conclusive)


def verdicts(thresholds, overall, slices=(), task="binary"):
    return judge(parse_thresholds(thresholds, task, sliced=True), overall, worst_first(list(slices), task))


def sentence(thresholds, overall, slices=()):
    ordered = worst_first(list(slices), "binary")
    return reason(verdicts(thresholds, overall, ordered), overall, ordered, "binary")


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        ({"acu": {"min": 0.8}}, ["'acu'", "auc", "calibration_error"]),
        ({"mae": {"max": 3}}, ["'mae'", "binary", "auc"]),
        ({"auc": {"minimum": 0.8}}, ["'minimum'", *KEYS]),
        ({"auc": 0.8}, ["'auc'", '{"auc": {"min": 0.5}}']),
        ({"auc": {}}, ["'auc'"]),
        ({"auc": {"min": "0.8"}}, ["'min'", "'0.8'"]),
        ({"auc": {"min": float("nan")}}, ["nan"]),
        ({"auc": {"min": True}}, ["True"]),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused_in_one_line_that_says_what_is_valid(thresholds, words):
    with pytest.raises(StepError) as refused:
        parse_thresholds(thresholds, "binary", sliced=True)
    assert all(word in str(refused.value) for word in words)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("task", list(METRICS))
def test_without_thresholds_those_of_the_task_apply(task):
    defaults = parse_thresholds({}, task, sliced=True)
    assert {t.metric for t in defaults} == DEFAULTS[task].keys()
    assert any(not t.relative and not t.per_slice for t in defaults), "a first model must meet something"


def test_a_threshold_for_slices_needs_slices_unless_it_is_a_default():
    with pytest.raises(StepError, match=r"auc slice_min 0\.7 needs slices; name columns in slice_columns"):
        parse_thresholds({"auc": {"slice_min": 0.7}}, "binary", sliced=False)
    assert not any(threshold.per_slice for threshold in parse_thresholds({}, "binary", sliced=False))


limits = st.floats(-1, 1)


@settings(deadline=None)
@given(limits, limits)
def test_a_minimum_may_be_met_exactly_and_not_missed(limit, value):
    [low] = verdicts({"auc": {"min": limit}}, group(value))
    [high] = verdicts({"auc": {"max": limit}}, group(value))
    assert low.passed == (value >= limit)
    assert high.passed == (value <= limit)
    assert low.passed or high.passed


@settings(deadline=None)
@given(limits, limits, limits)
def test_a_change_is_the_metric_minus_the_baselines(limit, value, before):
    [low] = verdicts({"auc": {"min_change": limit}}, group(value, baseline=before))
    assert low.passed == (value - before >= limit)
    assert low.value == value - before


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0, 1))
def test_a_slice_threshold_holds_when_every_slice_meets_it_and_names_the_worst(values, limit):
    slices = [group(value, f"carrier=C{i}") for i, value in enumerate(values)]
    [low] = verdicts({"auc": {"slice_min": limit}}, group(0.9), slices)
    [high] = verdicts({"auc": {"slice_max": limit}}, group(0.9), slices)
    assert low.passed == all(value >= limit for value in values)
    assert high.passed == all(value <= limit for value in values)
    assert (low.value, high.value) == (min(values), max(values))
    assert low.failed_slices == sum(value < limit for value in values)
    assert low.where.metrics["auc"] == min(values)


def test_relative_thresholds_wait_for_a_baseline_and_the_reason_says_so():
    thresholds = {"auc": {"min": 0.55, "min_change": -0.005, "slice_min_change": -0.02}}
    [minimum, change, slice_change] = verdicts(thresholds, group(0.8), [group(0.7, "carrier=HA", rows=342)])
    assert (minimum.passed, change.passed, slice_change.passed) == (True, None, None)
    assert sentence(thresholds, group(0.8), [group(0.7, "carrier=HA", rows=342)]) == (
        "blessed: auc is 0.8 and the one threshold that applies holds; "
        "the worst slice is carrier=HA (342 rows) with auc 0.7; "
        "there is no baseline model, so auc min_change -0.005 and auc slice_min_change -0.02 could not be checked"
    )


def test_slices_without_enough_rows_of_each_class_are_not_judged():
    inconclusive = group(0.1, "carrier=OO", rows=300, conclusive=False)
    [verdict] = verdicts({"auc": {"slice_min": 0.5}}, group(0.9), [inconclusive])
    assert verdict.passed is None and "no slice" in verdict.skipped
    [verdict] = verdicts({"auc": {"slice_min": 0.5}}, group(0.9), [inconclusive, group(0.8, "carrier=UA")])
    assert verdict.passed and verdict.where.name == "carrier=UA"
    assert "OO" not in sentence({"auc": {"min": 0.5}}, group(0.9), [inconclusive])


def test_slices_that_read_alike_are_judged_one_by_one():
    [verdict] = verdicts(
        {"auc": {"slice_min": 0.5}}, group(0.9), [group(0.4, "a=(missing)"), group(0.8, "a=(missing)")]
    )
    assert (verdict.passed, verdict.value, verdict.failed_slices) == (False, 0.4, 1)


def test_a_slice_where_the_metric_is_undefined_is_not_judged_but_an_undefined_overall_metric_fails():
    [verdict] = verdicts({"precision": {"slice_min": 0.5}}, group(0.9), [group(0.9, "a=1", precision=None)])
    assert verdict.passed is None
    [verdict] = verdicts({"precision": {"min": 0.5}}, group(0.9, precision=None))
    assert verdict.passed is False
    assert sentence({"precision": {"min": 0.5}}, group(0.9, precision=None)) == (
        "not blessed: precision is undefined, so precision min 0.5 does not hold"
    )


def test_the_reason_of_a_rejection_names_the_slice_the_threshold_and_both_numbers():
    slices = [group(0.66054, "carrier=HA", rows=342), group(0.69, "carrier=OO"), group(0.9, "carrier=UA")]
    assert sentence({"auc": {"slice_min": 0.7}}, group(0.8), slices) == (
        "not blessed: auc of carrier=HA (342 rows) is 0.6605, below slice_min 0.7 (as is 1 more slice)"
    )


def test_the_reason_of_an_overall_rejection_still_names_the_worst_slice():
    slices = [group(0.44, "carrier=HA", rows=342)]
    thresholds = {"auc": {"min": 0.55, "min_change": -0.005}}
    assert sentence(thresholds, group(0.512, baseline=0.6), slices) == (
        "not blessed: auc is 0.512, below min 0.55 and auc changed against the baseline by -0.088, "
        "below min_change -0.005; the worst slice is carrier=HA (342 rows) with auc 0.44"
    )


@settings(deadline=None)
@given(st.floats(0.1, 0.9), st.floats(0.1, 0.9))
def test_numbers_that_differ_read_differently(value, limit):
    left, right = distinct(value, limit)
    assert (left == right) == (value == limit)


def test_slices_are_ordered_by_distance_from_a_perfect_model():
    slices = [group(0.9, "a=1"), group(None, "a=2"), group(0.6, "a=3")]
    assert [g.name for g in worst_first(slices, "binary")] == ["a=3", "a=1", "a=2"]
    errors = [group(0.5, "a=1", mae=3.0), group(0.5, "a=2", mae=7.0)]
    assert [g.name for g in worst_first(errors, "regression")] == ["a=2", "a=1"]


def test_a_threshold_reads_like_what_the_user_wrote():
    assert str(Threshold("auc", "slice_min", 0.7)) == "auc slice_min 0.7"
