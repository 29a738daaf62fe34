"""Every metric against an independent definition, and the invariances it must have."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_hybrid.scoring.metrics import (
    BINARY,
    MULTICLASS,
    REGRESSION,
    SMALLEST_PROBABILITY,
    Z95,
    BinaryScores,
    MulticlassScores,
    OperatingPoints,
    RegressionScores,
    Reliability,
    concatenate,
    wilson_interval,
)

# Few distinct scores make ties likely; the others make them unlikely.
coarse_scores = st.integers(0, 8).map(lambda i: i / 8)
fine_scores = st.floats(0, 1, width=32)
rows_strategy = st.one_of(
    st.lists(st.tuples(st.booleans(), coarse_scores), min_size=1, max_size=40),
    st.lists(st.tuples(st.booleans(), fine_scores), min_size=1, max_size=40),
)
both_classes = rows_strategy.filter(lambda rows: len({label for label, _ in rows}) == 2)


def binary(rows, **kwargs):
    labels, scores = zip(*rows, strict=True)
    return BinaryScores(np.array(labels), np.array(scores, np.float32), **kwargs)


def split_by_class(rows):
    return [np.float32(s) for label, s in rows if label], [np.float32(s) for label, s in rows if not label]


@settings(deadline=None)
@given(both_classes)
def test_auc_is_the_probability_that_a_positive_row_ranks_above_a_negative_one(rows):
    positives, negatives = split_by_class(rows)
    wins = sum((p > n) + (p == n) / 2 for p in positives for n in negatives)
    assert binary(rows).metrics()["auc"] == pytest.approx(wins / (len(positives) * len(negatives)), abs=1e-12)


@settings(deadline=None)
@given(both_classes)
def test_auc_depends_on_the_ranking_only(rows):
    order = {score: rank for rank, score in enumerate(sorted({np.float32(s) for _, s in rows}))}
    ranked = [(label, order[np.float32(score)] / len(order)) for label, score in rows]
    assert binary(ranked).metrics()["auc"] == binary(rows).metrics()["auc"]


@settings(deadline=None)
@given(both_classes)
def test_auc_of_the_opposite_labels_is_the_complement(rows):
    flipped = [(not label, score) for label, score in rows]
    assert binary(flipped).metrics()["auc"] == pytest.approx(1 - binary(rows).metrics()["auc"], abs=1e-12)


@settings(deadline=None)
@given(both_classes)
def test_auc_interval_uses_the_variance_of_the_placements(rows):
    positives, negatives = split_by_class(rows)
    interval = binary(rows).interval()
    if min(len(positives), len(negatives)) < 2:
        assert interval is None
        return
    beats = lambda p, n: float(p > n) + (p == n) / 2  # noqa: E731
    of_positives = [statistics.fmean(beats(p, n) for n in negatives) for p in positives]
    of_negatives = [statistics.fmean(beats(p, n) for p in positives) for n in negatives]
    auc = statistics.fmean(of_positives)
    variance = statistics.variance(of_positives) / len(positives) + statistics.variance(of_negatives) / len(negatives)
    margin = Z95 * math.sqrt(variance)
    assert interval == pytest.approx((max(0, auc - margin), min(1, auc + margin)), abs=1e-9)


def test_auc_interval_holds_the_true_auc_about_95_times_in_a_hundred():
    # Two unit normals a distance d apart have AUC = Phi(d / sqrt 2).
    generator, distance, trials = np.random.default_rng(5), 1.0, 400
    truth = statistics.NormalDist().cdf(distance / math.sqrt(2))
    labels = np.arange(150) < 60
    held = 0
    for _ in range(trials):
        low, high = OperatingPoints.of(labels, generator.normal(size=150) + distance * labels).auc_interval()
        held += low <= truth <= high
    assert 0.92 <= held / trials <= 0.98


@settings(deadline=None)
@given(rows_strategy.filter(lambda rows: any(label for label, _ in rows)))
def test_average_precision_is_the_precision_at_each_positive_row_averaged(rows):
    positives, _ = split_by_class(rows)
    precision = [
        sum(label for label, s in rows if np.float32(s) >= p) / sum(np.float32(s) >= p for _, s in rows)
        for p in positives
    ]
    assert binary(rows).metrics()["auc_pr"] == pytest.approx(statistics.fmean(precision), abs=1e-12)


@settings(deadline=None)
@given(rows_strategy, st.sampled_from([0.125, 0.3, 0.5, 0.875]))
def test_decisions_at_the_threshold_are_counted_one_by_one(rows, threshold):
    scores = binary(rows, decision_threshold=threshold)
    cells = {(label, called): 0 for label in (False, True) for called in (False, True)}
    for label, score in rows:
        cells[label, np.float32(score) >= np.float32(threshold)] += 1
    tn, fp, fn, tp = (cells[key] for key in ((False, False), (False, True), (True, False), (True, True)))
    assert scores.confusion().tolist() == [[tn, fp], [fn, tp]]
    metrics = scores.metrics()
    assert metrics["accuracy"] == (tp + tn) / len(rows)
    assert metrics["precision"] == (tp / (tp + fp) if tp + fp else None)
    assert metrics["recall"] == (tp / (tp + fn) if tp + fn else None)
    if tp:
        assert metrics["f1"] == pytest.approx(statistics.harmonic_mean([metrics["precision"], metrics["recall"]]))
    else:
        assert metrics["f1"] in (0, None)


@settings(deadline=None)
@given(rows_strategy)
def test_log_loss_is_the_mean_negative_log_likelihood(rows):
    losses = []
    for label, score in rows:
        likelihood = np.float32(score) if label else np.float32(1) - np.float32(score)
        losses.append(-math.log(max(float(likelihood), SMALLEST_PROBABILITY)))
    assert binary(rows).metrics()["log_loss"] == pytest.approx(statistics.fmean(losses), rel=1e-6)


@settings(deadline=None)
@given(rows_strategy)
def test_the_order_of_the_rows_does_not_matter(rows):
    before, after = binary(rows).metrics(), binary(rows[::-1]).metrics()
    assert [value is None for value in after.values()] == [value is None for value in before.values()]
    defined = [name for name, value in before.items() if value is not None]
    assert [after[name] for name in defined] == pytest.approx([before[name] for name in defined], rel=1e-9)


@settings(deadline=None)
@given(st.lists(rows_strategy, min_size=1, max_size=4))
def test_batches_collected_one_by_one_are_the_whole(parts):
    whole = binary([row for part in parts for row in part], decision_threshold=0.25)
    collected = concatenate([binary(part, decision_threshold=0.25) for part in parts])
    assert collected.metrics() == whole.metrics()


def test_metrics_that_the_rows_do_not_define_are_none():
    metrics = binary([(False, 0.1), (False, 0.2)]).metrics()
    undefined = {name for name, value in metrics.items() if value is None}
    assert undefined == {"auc", "auc_pr", "precision", "recall", "f1", "calibration_ratio"}
    assert binary([(False, 0.1)]).interval() is None


@settings(deadline=None)
@given(both_classes, st.integers(2, 12))
def test_a_thinned_curve_keeps_its_ends_and_only_real_points(rows, points):
    whole = binary(rows).points
    thin = whole.thin(points)
    assert len(thin.thresholds) <= points
    assert thin.thresholds[-1] == whole.thresholds[-1]
    assert (thin.positives, thin.negatives) == (whole.positives, whole.negatives)
    real = set(zip(whole.thresholds, whole.true_positives, whole.false_positives, strict=True))
    assert set(zip(thin.thresholds, thin.true_positives, thin.false_positives, strict=True)) <= real


def test_a_thinned_curve_has_nearly_the_same_area():
    generator = np.random.default_rng(3)
    labels = generator.random(20_000) < 0.2
    points = OperatingPoints.of(labels, generator.normal(size=20_000) + labels)
    thin = points.thin(199)
    recall = np.append(0, thin.true_positives / thin.positives)
    false_alarms = np.append(0, thin.false_positives / thin.negatives)
    assert np.trapezoid(recall, false_alarms) == pytest.approx(points.auc(), abs=2e-4)


@settings(deadline=None)
@given(rows_strategy, st.integers(1, 12))
def test_reliability_bins_hold_every_row_once_and_keep_the_means(rows, bins):
    scores = binary(rows)
    reliability = Reliability.of(scores.scores, scores.labels, bins)
    assert len(reliability.rows) <= bins and (reliability.rows > 0).all() and reliability.rows.sum() == len(rows)
    assert (np.diff(reliability.predicted) > 0).all()
    assert reliability.predicted @ reliability.rows == pytest.approx(float(scores.scores.sum(dtype=float)))
    assert reliability.observed @ reliability.rows == pytest.approx(float(scores.labels.sum()))


def test_a_calibrated_model_has_no_calibration_error_and_an_overconfident_one_has():
    generator = np.random.default_rng(7)
    truth = generator.random(200_000).astype(np.float32)
    labels = generator.random(200_000) < truth
    assert BinaryScores(labels, truth).metrics()["calibration_error"] < 0.005
    overconfident = np.clip(1.5 * (truth - 0.5) + 0.5, 0, 1)
    # The distance |1.5 (p - 0.5) + 0.5 - p| of a uniform p, cut at 0 and 1, is 1/12 on average.
    assert BinaryScores(labels, overconfident).metrics()["calibration_error"] == pytest.approx(1 / 12, abs=0.005)


def test_bins_hold_equally_many_rows_however_skewed_the_scores_are():
    scores = np.random.default_rng(1).random(10_000).astype(np.float32) ** 8
    assert set(Reliability.of(scores, scores > 2).rows.tolist()) == {1000}


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_bounds_are_where_the_score_test_just_rejects(successes, more):
    trials = successes + more
    share = successes / trials
    for bound in map(float, wilson_interval(successes, trials)):
        if 1e-9 < bound < 1 - 1e-9:  # 0 and 1 are where the interval is cut
            assert abs(share - bound) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / trials), abs=1e-9)


multiclass_rows = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(1, 9), min_size=4, max_size=4)), min_size=1, max_size=40
)


def multiclass(rows):
    labels = np.array([label for label, _ in rows], np.int32)
    weights = np.array([weights for _, weights in rows], float)
    return labels, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None)
@given(multiclass_rows)
def test_multiclass_metrics_are_counted_one_by_one(rows):
    labels, probabilities = multiclass(rows)
    scores = MulticlassScores.of(labels, probabilities)
    called = [max(range(4), key=lambda k, row=row: row[k]) for row in probabilities.tolist()]
    hits = [label == call for label, call in zip(labels.tolist(), called, strict=True)]
    f1 = []
    for k in range(4):
        tp = sum(hit and label == k for hit, label in zip(hits, labels, strict=True))
        true, claimed = sum(labels == k), called.count(k)
        expected = {"rows": true, "recall": tp / true if true else None, "precision": tp / claimed if claimed else None}
        expected["f1"] = 2 * tp / (true + claimed) if true + claimed else None
        assert scores.per_class()[k] == expected
        f1 += [expected["f1"]] if true + claimed else []
    metrics = scores.metrics()
    assert metrics["accuracy"] == pytest.approx(statistics.fmean(hits))
    assert metrics["macro_f1"] == pytest.approx(statistics.fmean(f1))
    losses = [-math.log(row[label]) for row, label in zip(probabilities.tolist(), labels, strict=True)]
    assert metrics["log_loss"] == pytest.approx(statistics.fmean(losses))
    assert metrics["confidence_mean"] == pytest.approx(statistics.fmean(max(row) for row in probabilities.tolist()))
    chance = sum((labels == k).mean() * called.count(k) / len(rows) for k in range(4))
    if chance < 1:
        assert metrics["kappa"] == pytest.approx((metrics["accuracy"] - chance) / (1 - chance), abs=1e-9)
    else:
        assert metrics["kappa"] is None
    assert scores.confusion().sum() == len(rows) and np.trace(scores.confusion()) == sum(hits)


@settings(deadline=None)
@given(multiclass_rows, st.permutations(range(4)))
def test_the_order_of_the_classes_does_not_matter(rows, order):
    # Ties between classes are decided by their order, so leave those rows out.
    rows = [(label, weights) for label, weights in rows if weights.count(max(weights)) == 1]
    if not rows:
        return
    labels, probabilities = multiclass(rows)
    before = MulticlassScores.of(labels, probabilities).metrics()
    after = MulticlassScores.of(np.array([order.index(k) for k in labels]), probabilities[:, order]).metrics()
    assert after == pytest.approx(before, abs=1e-9)


@settings(deadline=None)
@given(rows_strategy)
def test_two_classes_are_measured_alike_as_binary_and_as_multiclass(rows):
    rows = [(label, score) for label, score in rows if np.float32(score) != 0.5]
    if not rows:
        return
    one = binary(rows)
    two = MulticlassScores.of(one.labels.astype(np.int32), np.stack([1 - one.scores, one.scores], axis=1))
    assert two.confusion().tolist() == one.confusion().tolist()
    assert two.metrics()["accuracy"] == one.metrics()["accuracy"]
    assert two.metrics()["log_loss"] == pytest.approx(one.metrics()["log_loss"])


numbers = st.floats(-1e3, 1e3, width=32)
regression_rows = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=40)


def regression(rows):
    labels, predictions = zip(*rows, strict=True)
    return RegressionScores(np.array(labels, np.float64), np.array(predictions, np.float32))


@settings(deadline=None)
@given(regression_rows)
def test_regression_metrics_follow_their_definitions(rows):
    errors = [prediction - label for label, prediction in rows]
    metrics = regression(rows).metrics()
    assert metrics["mae"] == pytest.approx(statistics.fmean(map(abs, errors)), abs=1e-9)
    assert metrics["rmse"] == pytest.approx(math.sqrt(statistics.fmean(e * e for e in errors)), abs=1e-9)
    assert metrics["bias"] == pytest.approx(statistics.fmean(errors), abs=1e-9)
    labels = [label for label, _ in rows]
    if len(set(labels)) == 1:
        assert metrics["r2"] is None
    elif (spread := statistics.pvariance(labels)) > 1e-6:
        assert metrics["r2"] == pytest.approx(1 - statistics.fmean(e * e for e in errors) / spread, rel=1e-6)


def test_r2_is_0_for_the_mean_and_1_for_the_truth_and_undefined_for_a_constant_label():
    labels = np.arange(10.0)
    assert RegressionScores(labels, np.full(10, 4.5, np.float32)).metrics()["r2"] == pytest.approx(0)
    assert RegressionScores(labels, labels.astype(np.float32)).metrics()["r2"] == 1
    assert RegressionScores(np.full(3, 0.1), np.zeros(3, np.float32)).metrics()["r2"] is None


def test_mae_interval_is_the_normal_one():
    labels, predictions = np.zeros(4), np.array([1, -2, 3, -4], np.float32)
    low, high = RegressionScores(labels, predictions).interval()
    margin = Z95 * statistics.stdev([1, 2, 3, 4]) / 2
    assert (low, high) == pytest.approx((2.5 - margin, 2.5 + margin))
    assert RegressionScores(labels[:1], predictions[:1]).interval() is None


def test_taking_rows_measures_just_those():
    rows = [(True, 0.9), (False, 0.2), (True, 0.1), (False, 0.7)]
    assert binary(rows).take(np.array([0, 3])).metrics() == binary([rows[0], rows[3]]).metrics()
    labels, probabilities = multiclass([(0, [1, 2, 3, 4]), (1, [4, 3, 2, 1]), (2, [1, 1, 9, 1])])
    taken = MulticlassScores.of(labels, probabilities).take(np.array([0, 2]))
    assert taken.metrics() == MulticlassScores.of(labels[[0, 2]], probabilities[[0, 2]]).metrics()
    pairs = [(1.0, 2.0), (3.0, 5.0), (7.0, 7.5)]
    assert regression(pairs).take(np.array([1])).metrics() == regression(pairs[1:2]).metrics()


def test_every_metric_of_a_task_is_computed_and_described():
    labels, probabilities = multiclass([(0, [1, 2, 3, 4]), (1, [4, 3, 2, 1])])
    assert binary([(True, 0.5), (False, 0.2)]).metrics().keys() == BINARY.keys()
    assert MulticlassScores.of(labels, probabilities).metrics().keys() == MULTICLASS.keys()
    assert regression([(1.0, 2.0)]).metrics().keys() == REGRESSION.keys()


def test_counts_beyond_32_bits_do_not_overflow():
    labels = np.arange(2_000_000) % 2 == 0  # 1e6 positives x 1e6 negatives = 1e12 pairs
    assert OperatingPoints.of(labels, labels.astype(np.float32)).auc() == 1
