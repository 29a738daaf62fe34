"""Rebinning: histograms of several data sets over common bins."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import statistics_pb2

from kfp_hybrid.components.data_validation.validate_statistics.distributions import (
    BINS,
    Distribution,
    common_bins,
    common_values,
    distribution,
    text_shares,
)

INT, FLOAT = statistics_pb2.FeatureNameStatistics.INT, statistics_pb2.FeatureNameStatistics.FLOAT
STANDARD, QUANTILES = statistics_pb2.Histogram.STANDARD, statistics_pb2.Histogram.QUANTILES


def feature(kind: int, *histograms: tuple[int, list[float], list[float]]) -> statistics_pb2.FeatureNameStatistics:
    one = statistics_pb2.FeatureNameStatistics(type=kind)
    for type_, edges, counts in histograms:
        histogram = one.num_stats.histograms.add(type=type_)
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
            histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
    return one


@st.composite
def histograms(draw: st.DrawFn, kind: int, type_: int) -> tuple[int, list[float], list[float]]:
    number = st.integers(-1000, 1000) if kind == INT else st.floats(-1e6, 1e6)
    size = draw(st.integers(1, 10))
    edges = sorted(draw(st.lists(number, min_size=size + 1, max_size=size + 1)))
    counts = draw(st.lists(st.floats(0, 1e6), min_size=size, max_size=size).filter(lambda c: sum(c) > 0))
    return type_, [float(edge) for edge in edges], counts


@st.composite
def distributions(draw: st.DrawFn, kind: int | None = None) -> Distribution:
    kind = draw(st.sampled_from([INT, FLOAT])) if kind is None else kind
    kinds = draw(st.sampled_from([(STANDARD,), (QUANTILES,), (STANDARD, QUANTILES)]))
    made = distribution(feature(kind, *(draw(histograms(kind, type_)) for type_ in kinds)))
    assert made is not None
    return made


@given(st.lists(distributions(), min_size=1, max_size=4))
def test_rebinning_to_common_bins_keeps_all_mass(sides: list[Distribution]) -> None:
    bins = common_bins(sides)
    assert np.all(np.diff(bins.edges) > 0)
    assert len(bins.edges) <= BINS + 4
    for side in sides:
        fractions = side.fractions(bins.edges)
        assert len(fractions) == len(bins.edges) - 1
        assert fractions.min() >= 0
        assert fractions.sum() == pytest.approx(1)


@given(distributions(), st.lists(st.floats(-2e6, 2e6), min_size=3, max_size=20, unique=True), st.data())
def test_joining_two_bins_adds_their_mass(side: Distribution, edges: list[float], data: st.DataObject) -> None:
    fine = np.array(sorted(edges))
    dropped = data.draw(st.integers(1, len(fine) - 2))
    joined, parts = side.fractions(np.delete(fine, dropped)), side.fractions(fine)
    assert joined[dropped - 1] == pytest.approx(parts[dropped - 1] + parts[dropped])
    assert np.delete(joined, dropped - 1) == pytest.approx(np.delete(parts, [dropped - 1, dropped]))


@given(histograms(FLOAT, STANDARD).filter(lambda h: len(set(h[1])) == len(h[1])))
def test_rebinning_to_its_own_bins_gives_the_histogram_back(histogram: tuple[int, list[float], list[float]]) -> None:
    made = distribution(feature(FLOAT, histogram))
    assert made is not None
    counts = np.array(histogram[2])
    assert made.fractions(np.array(histogram[1])) == pytest.approx(counts / counts.sum(), abs=1e-9)


@given(distributions(), st.lists(st.floats(-2e6, 2e6), min_size=1, max_size=20))
def test_the_share_of_values_never_falls(side: Distribution, values: list[float]) -> None:
    shares = side.share_up_to(np.array(sorted(values)))
    assert np.all(np.diff(shares) >= 0)
    assert 0 <= shares.min() <= shares.max() <= 1


@given(st.lists(distributions(kind=INT), min_size=1, max_size=3))
def test_bins_of_whole_numbers_lie_between_them(sides: list[Distribution]) -> None:
    edges = common_bins(sides).edges
    assert np.all(edges % 1 == 0.5)


def test_half_a_bin_gets_half_of_its_mass() -> None:
    made = distribution(feature(FLOAT, (STANDARD, [0, 10, 20], [30, 10])))
    assert made is not None
    assert made.fractions(np.array([0.0, 5, 10, 20])) == pytest.approx([0.375, 0.375, 0.25])


def test_a_frequent_value_stays_in_its_own_bin() -> None:
    quantiles = (QUANTILES, [0.0] * 10 + [1.0], [10.0] * 10)
    made = distribution(feature(FLOAT, (STANDARD, [0, 0.5, 1], [95, 5]), quantiles))
    assert made is not None
    assert made.fractions(np.array([0.0, 0.1, 1])) == pytest.approx([0.91, 0.09], abs=0.01)


def test_infinite_values_count_at_the_ends() -> None:
    made = distribution(feature(FLOAT, (STANDARD, [-np.inf, 0, 1, np.inf], [1, 8, 1])))
    assert made is not None
    assert made.fractions(np.array([0.0, 0.5, 1])) == pytest.approx([0.5, 0.5])


def test_a_feature_without_values_has_no_distribution() -> None:
    assert distribution(feature(FLOAT)) is None
    assert distribution(feature(FLOAT, (STANDARD, [0, 1], [0]))) is None


def test_a_single_value_gets_a_bin() -> None:
    made = distribution(feature(FLOAT, (STANDARD, [5.0, 5.0], [10])))
    assert made is not None
    bins = common_bins([made])
    assert bins.edges[0] < 5 < bins.edges[-1]
    assert made.fractions(bins.edges).tolist() == [1]


def of_tfdv(values: Any) -> statistics_pb2.FeatureNameStatistics:
    import tensorflow_data_validation as tfdv

    return tfdv.generate_statistics_from_dataframe(pd.DataFrame({"x": values})).datasets[0].features[0]


def test_whole_numbers_of_tfdv_are_told_apart() -> None:
    days = np.random.default_rng(7).choice(7, 5000, p=[0.3, 0.05, 0.15, 0.2, 0.1, 0.15, 0.05])
    made = distribution(of_tfdv(days))
    assert made is not None
    bins = common_bins([made])
    assert bins.edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5]
    assert made.fractions(bins.edges) == pytest.approx(np.bincount(days) / 5000, abs=0.01)


def test_a_long_tail_becomes_one_bin_and_both_histograms_together_see_more_than_one() -> None:
    delays = np.random.default_rng(7).lognormal(2, 1.5, 20000)
    feature_ = of_tfdv(delays)
    made = distribution(feature_)
    assert made is not None
    bins = common_bins([made])
    assert bins.above and not bins.below
    assert bins.edges[-2] < delays.max() / 3

    def error(estimate: Distribution) -> float:
        true = np.array([np.mean(delays <= edge) for edge in bins.edges[1:-1]])
        return float(np.abs(estimate.share_up_to(bins.edges[1:-1]) - true).max())

    alone = statistics_pb2.FeatureNameStatistics(type=FLOAT)
    alone.num_stats.histograms.extend(h for h in feature_.num_stats.histograms if h.type == STANDARD)
    only_standard = distribution(alone)
    assert only_standard is not None
    assert error(made) < 0.05 < error(only_standard)


def test_text_shares_are_of_all_values_and_the_common_ones_come_first() -> None:
    one = statistics_pb2.FeatureNameStatistics(type=statistics_pb2.FeatureNameStatistics.STRING)
    one.string_stats.common_stats.num_non_missing = one.string_stats.common_stats.tot_num_values = 100
    for label, count in (("UA", 60), ("AA", 30), ("DL", 10)):
        one.string_stats.rank_histogram.buckets.add(label=label, sample_count=count)
    assert text_shares(one) == {"UA": 0.6, "AA": 0.3, "DL": 0.1}
    assert common_values([text_shares(one), {"WN": 0.7, "UA": 0.3}], 3) == ["UA", "WN", "AA"]
    assert text_shares(statistics_pb2.FeatureNameStatistics()) == {}
