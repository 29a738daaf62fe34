"""Puts the histograms of several data sets over common bins, so that they can be drawn upon each other.

TFDV keeps two histograms of a numeric feature: STANDARD with bins of equal width, QUANTILES with bins of equal count.
Both say the same thing, the share of values up to a bin's upper edge, and their edges together are a cumulative
distribution twice as fine as either, fine where the values are. Any bins can be read off it, and no mass gets lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import statistics_pb2

BINS = 24
# Where values are sparse: when the middle 96 % take less than a third of the range, only they get bins of their own.
_CORE = (0.02, 0.98)
_LONG_TAIL = 3.0
_ROOM = 0.25

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Distribution:
    """The cumulative distribution of a numeric feature, piecewise linear, with jumps at frequent values.

    Attributes:
        points: values in increasing order; a value that occurs twice is a jump.
        shares: the share of values up to each point, from 0 to 1.
        whole: the values are whole numbers; each then takes the unit interval around itself.
    """

    points: Floats
    shares: Floats
    whole: bool

    def share_up_to(self, values: Floats) -> Floats:
        """The share of the distribution that is less than or equal to each value."""
        last = len(self.points) - 1
        after = np.searchsorted(self.points, values, side="right")
        left, right = np.maximum(after - 1, 0), np.minimum(after, last)
        width = self.points[right] - self.points[left]
        part = np.divide(values - self.points[left], width, out=np.zeros(len(values)), where=width > 0)
        inside = self.shares[left] + part * (self.shares[right] - self.shares[left])
        return np.where(after == 0, 0.0, np.where(after > last, 1.0, inside))

    def fractions(self, edges: Floats) -> Floats:
        """The share of values in each bin (low, high]; the first and the last bin take all that lies beyond.

        Args:
            edges: n + 1 increasing bin edges.

        Returns:
            n fractions that sum to 1.
        """
        return np.diff(np.concatenate(([0.0], self.share_up_to(edges[1:-1]), [1.0])))

    def quantile(self, share: float) -> float:
        """The value that `share` of the distribution does not exceed."""
        return float(np.interp(share, self.shares, self.points))


@dataclass(frozen=True)
class Bins:
    """Bins for several distributions.

    Attributes:
        edges: n + 1 increasing edges.
        below: the first bin stands for everything below its upper edge.
        above: the last bin stands for everything above its lower edge.
        whole: the values are whole numbers, and the edges lie halfway between them.
    """

    edges: Floats
    below: bool
    above: bool
    whole: bool


def distribution(feature: statistics_pb2.FeatureNameStatistics) -> Distribution | None:
    """The distribution of a numeric feature; None when it has no values.

    Args:
        feature: statistics with `num_stats`.
    """
    whole = feature.type == statistics_pb2.FeatureNameStatistics.INT
    curves = [curve for kind in (statistics_pb2.Histogram.QUANTILES, statistics_pb2.Histogram.STANDARD)
              for histogram in feature.num_stats.histograms if histogram.type == kind
              if (curve := _curve(histogram, whole)) is not None]  # fmt: skip
    if not curves:
        return None
    points, shares = curves[0]
    for other_points, other_shares in curves[1:]:
        # Quantiles are counted and bins of equal width interpolated from them: the first curve is right where both are.
        new = ~np.isin(other_points, points)
        points, shares = np.append(points, other_points[new]), np.append(shares, other_shares[new])
    order = np.lexsort((shares, points))
    return Distribution(points[order], np.maximum.accumulate(shares[order]), whole)


def _curve(histogram: statistics_pb2.Histogram, whole: bool) -> tuple[Floats, Floats] | None:
    """A histogram as points of a cumulative distribution; None when it has no finite edge or no mass."""
    points = np.array([edge for bucket in histogram.buckets for edge in (bucket.low_value, bucket.high_value)])
    up_to = np.cumsum([bucket.sample_count for bucket in histogram.buckets])
    finite = points[np.isfinite(points)]
    if not len(finite) or up_to[-1] <= 0:
        return None
    points = np.clip(points, finite.min(), finite.max())  # infinite values count as the outermost finite ones
    shares = np.repeat(np.concatenate(([0.0], up_to / up_to[-1])), 2)[1:-1]
    return _of_whole_numbers(points, shares) if whole else (points, shares)


def _of_whole_numbers(points: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Move each edge to the upper end of the last whole number it includes, halfway to the next one."""
    noise = 1e-9 * max(1.0, float(np.abs(points).max()))
    ends = np.floor(points + noise) + 0.5
    ends[0] -= 1
    final = np.append(ends[1:] != ends[:-1], True)
    return ends[final], shares[final]


def common_bins(distributions: Sequence[Distribution], count: int = BINS) -> Bins:
    """Bins of equal width for all distributions, over the range in which most of their values are.

    Args:
        distributions: at least one.
        count: number of bins; whole numbers get fewer when there are fewer of them.
    """
    low, high = min(d.points[0] for d in distributions), max(d.points[-1] for d in distributions)
    core_low = min(d.quantile(_CORE[0]) for d in distributions)
    core_high = max(d.quantile(_CORE[1]) for d in distributions)
    core = core_high - core_low
    first, last = low, high
    if 0 < core * _LONG_TAIL < high - low:
        first, last = max(low, core_low - _ROOM * core), min(high, core_high + _ROOM * core)
    whole = all(d.whole for d in distributions)
    edges = _whole_edges(first, last, count) if whole else _even_edges(first, last, count)
    width = edges[1] - edges[0]
    below, above = bool(edges[0] > low), bool(edges[-1] < high)
    return Bins(np.concatenate(([edges[0] - width] * below, edges, [edges[-1] + width] * above)), below, above, whole)


def _even_edges(first: float, last: float, count: int) -> Floats:
    if last <= first:
        room = abs(first) / 2 or 0.5
        return np.array([first - room, last + room])
    return np.linspace(first, last, count + 1)


def _whole_edges(first: float, last: float, count: int) -> Floats:
    """Edges halfway between whole numbers, the same number of them in each bin."""
    first, last = np.floor(first) + 0.5, np.ceil(last - 0.5) + 0.5
    step = max(1.0, np.ceil((last - first) / count))
    return first + step * np.arange(np.ceil((last - first) / step) + 1)


def text_shares(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """The share of each of a text feature's frequent values among its values.

    Args:
        feature: statistics with `string_stats`.
    """
    stats = feature.string_stats
    counts = {bucket.label: bucket.sample_count for bucket in stats.rank_histogram.buckets}
    counts |= {top.value: top.frequency for top in stats.top_values}
    total = stats.common_stats.tot_num_values or stats.common_stats.num_non_missing
    return {value: count / total for value, count in counts.items()} if total else {}


def common_values(sides: Sequence[dict[str, float]], most: int) -> list[str]:
    """The values with the largest shares over all sides, the largest first.

    Args:
        sides: of each side the share of each value.
        most: how many values to return at most.
    """
    total: dict[str, float] = {}
    for shares in sides:
        for value, share in shares.items():
            total[value] = total.get(value, 0.0) + share
    return sorted(total, key=lambda value: (-total[value], value))[:most]
