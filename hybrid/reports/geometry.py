"""Geometry of the charts: axes with round ticks, and SVG paths. The templates only draw what is computed here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_PIXELS_PER_DIGIT = 10  # of paths: a tenth of a pixel is below what a screen shows


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to pixels.

    Attributes:
        low: smallest value of the axis.
        high: largest value of the axis.
        start: pixel of `low`.
        end: pixel of `high`; smaller than `start` for an axis that grows upwards.
        ticks: round values in [low, high] to label.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The pixel of a value, rounded to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        pixel = self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)
        return round(pixel * _PIXELS_PER_DIGIT) / _PIXELS_PER_DIGIT

    def label(self, tick: float) -> str:
        """A tick in as few characters as tell it from its neighbours: 0, 0.25, 40, 15k, 2M."""
        if not tick:
            return "0"
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(tick) or 1.0
        largest = max(abs(t) for t in self.ticks)
        for unit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
            if largest >= unit:
                unit = 1e3 if suffix == "k" else unit
                return _plain(tick / unit, step / unit) + suffix
        if step < 1e-4:
            return f"{tick:.1e}"
        return _plain(tick, step)


def axis(values: Iterable[float], start: float, end: float, ticks: int = 5, round_ends: bool = False) -> Axis:
    """An axis that holds all values.

    Args:
        values: values to cover; non-finite ones are ignored.
        start: pixel of the smallest value.
        end: pixel of the largest value.
        ticks: how many ticks to aim at.
        round_ends: extend the axis to the next tick on both sides.

    Returns:
        The axis; [0, 1] when there are no values, and a little room around a single value.
    """
    finite = [float(v) for v in values if v is not None and math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(low) / 2 or 0.5
        low, high = low - room, high + room
    step = _round_step((high - low) / max(ticks, 1))
    if round_ends:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Axis(low, high, start, end, tuple(i * step for i in range(first, last + 1)))


def bar_axis(values: Iterable[float], start: float, end: float, ticks: int = 4) -> Axis:
    """An axis for bars and counts: it always holds zero, and ends on a tick."""
    return axis([0.0, *values], start, end, ticks, round_ends=True)


def polyline(points: Iterable[Sequence[float]], x: Axis, y: Axis) -> str:
    """The SVG path through (x, y) points; a non-finite coordinate interrupts the line."""
    path: list[str] = []
    pen_down, last = False, (math.nan, math.nan)
    for px, py in points:
        if px is None or py is None or not (math.isfinite(px) and math.isfinite(py)):
            pen_down = False
            continue
        pixel = (x.at(px), y.at(py))
        if pen_down and pixel == last:
            continue
        path.append(f"{'L' if pen_down else 'M'}{pixel[0]:g} {pixel[1]:g}")
        pen_down, last = True, pixel
    return "".join(path)


def area(edges: Sequence[float], heights: Sequence[float], x: Axis, y: Axis) -> str:
    """The SVG path of a histogram's outline, closed at zero.

    Args:
        edges: n + 1 increasing bin edges.
        heights: n bar heights.
        x: horizontal axis.
        y: vertical axis.
    """
    if not heights:
        return ""
    steps = "".join(f"V{y.at(h):g}H{x.at(right):g}" for h, right in zip(heights, edges[1:], strict=True))
    return f"M{x.at(edges[0]):g} {y.at(0):g}{steps}V{y.at(0):g}Z"


def _round_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))


def _plain(value: float, step: float) -> str:
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9)) if step > 0 else 0
    return f"{value:.{decimals}f}".replace("-", "−")
