"""The base of HTML reports: what every report gets from it."""

import math
import re
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kfp_hybrid.reports import geometry, render, text

numbers = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False)


def page(tmp_path: Path, content: str, **context: object) -> str:
    template = tmp_path / "report.html.j2"
    template.write_text(
        '{% extends "base.html.j2" %}{% import "charts.html.j2" as charts %}{% block content %}'
        + content
        + "{% endblock %}"
    )
    render(template, tmp_path / "report", title="A <title>", **context)
    return (tmp_path / "report").read_text(encoding="utf-8")


def test_a_page_has_title_verdict_and_reason(tmp_path: Path) -> None:
    html = page(tmp_path, "<p>body</p>", verdict={"tone": "bad", "label": "Rejected"}, reason="AUC is low.")
    assert "<h1>A &lt;title&gt;</h1>" in html
    assert '<span class="badge bad">Rejected</span><p>AUC is low.</p>' in html
    assert "<p>body</p>" in html


def test_a_page_loads_nothing_from_anywhere_and_forbids_it(tmp_path: Path) -> None:
    html = page(tmp_path, '{{ charts.bars([("a", 1), ("b", 2)]) }}')
    assert not re.search(r"https?:|//[a-z]|@import|\b(src|srcset)\s*=|url\(", html)
    assert "default-src 'none'" in html


def test_values_are_escaped_in_every_chart(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"&"
    html = page(
        tmp_path,
        """{{ charts.badge(evil) }} {{ charts.cards([{"label": evil, "value": evil, "note": evil}]) }}
        {{ charts.table([{"label": evil}], [[evil], [{"text": evil, "tone": "good"}], [{"text": evil}]]) }}
        {{ charts.bars([(evil, 1)], x_label=evil, y_label=evil) }} {{ charts.hbars([(evil, 1)]) }}
        {{ charts.paired_bars([evil], [{"name": evil, "values": [1]}]) }}
        {{ charts.paired_hbars([evil], [{"name": evil, "values": [1]}]) }}
        {{ charts.histogram([0, 1], [{"name": evil, "values": [1]}], labels=[evil]) }}
        {{ charts.lines([{"name": evil, "points": [(0, 0), (1, 1)]}], x_label=evil, markers=true) }}""",
        evil=evil,
    )
    assert "<script>alert" not in html
    assert html.count("<script>") == 1  # the page's own
    assert html.count("&lt;script&gt;alert") > 10


def test_a_histogram_draws_every_side_that_has_values(tmp_path: Path) -> None:
    html = page(
        tmp_path,
        """{{ charts.histogram([0, 1, 2], [{"name": "train", "values": [0.25, 0.75]}, {"name": "none", "values": []}],
        below=true) }}""",
    )
    assert re.search(r'class="area s0" d="M44 178V[\d.]+H296V[\d.]+H548V178Z"', html)
    assert 'class="area s1" d=""' in html
    assert re.search(r"<title>0 – 1\s+train 25 %</title>", html)
    assert ">less</text>" in html and ">more</text>" not in html


def test_numbers_in_a_table_sort_by_value_and_show_in_their_format(tmp_path: Path) -> None:
    html = page(
        tmp_path,
        '{{ charts.table([{"label": "name"}, {"label": "size", "format": "size"}], [["a", 61100], ["b", none]]) }}',
    )
    assert '<td class="num" data-sort="61100">61.1 kB</td>' in html
    assert '<td class="num">–</td>' in html


def test_a_template_that_fails_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError):
        page(tmp_path, "{{ nothing_of_that_name }}")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html.j2"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234567, "1,234,567"), (0.123456, "0.1235"), (1.2e-7, "1.2e−07"), (-3.0, "−3"), (None, "–"), (math.nan, "–"),
     (math.inf, "∞"), (1013.25, "1,013"), (5e12, "5e12"), (0, "0")],
)  # fmt: skip
def test_a_number_has_four_significant_digits(value: float | None, shown: str) -> None:
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.1234, "12.3 %"), (0, "0 %"), (1, "100 %"), (0.0001, "<0.1 %"), (0.99999, ">99.9 %")]
)
def test_a_percentage_never_hides_that_it_is_not_all_or_nothing(value: float, shown: str) -> None:
    assert text.percent(value) == shown


@given(st.text(), st.integers(min_value=4, max_value=50))
def test_an_elided_text_keeps_its_ends_and_fits(value: str, length: int) -> None:
    shown = text.elide(value, length)
    assert len(shown) <= length
    assert shown == value or (shown[0] == value[0] and shown[-1] in ("…", value[-1]))


@given(st.lists(numbers, max_size=20), st.booleans())
def test_an_axis_holds_all_values_and_its_ticks_are_round(values: list[float], round_ends: bool) -> None:
    axis = geometry.axis(values, 100, 0, round_ends=round_ends)
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low < axis.high
    assert all(axis.low - slack <= value <= axis.high + slack for value in values)
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in axis.ticks)
    assert 1 <= len(axis.ticks) <= 12
    assert all(0 <= axis.at(value) <= 100 for value in values)


@given(st.lists(numbers, min_size=2, max_size=20))
def test_an_axis_keeps_the_order_of_values(values: list[float]) -> None:
    axis = geometry.axis(values, 0, 300)
    pixels = [axis.at(value) for value in sorted(values)]
    assert pixels == sorted(pixels)


@given(st.lists(numbers, max_size=20))
def test_bars_start_at_zero(values: list[float]) -> None:
    axis = geometry.bar_axis(values, 0, 100)
    assert axis.low <= 0 <= axis.high


@pytest.mark.parametrize(
    ("values", "labels"),
    [([0, 1], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]), ([0, 2e6], ["0", "0.5M", "1.0M", "1.5M", "2.0M"]),
     ([20000, 60000], ["20k", "30k", "40k", "50k", "60k"])],
)  # fmt: skip
def test_ticks_are_labelled_with_as_many_digits_as_they_need(values: list[float], labels: list[str]) -> None:
    axis = geometry.axis(values, 0, 100)
    assert [axis.label(tick) for tick in axis.ticks] == labels


def test_a_line_is_interrupted_where_a_value_is_missing() -> None:
    axis = geometry.axis([0, 10], 0, 10)
    path = geometry.polyline([(0, 0), (1, 1), (2, math.nan), (3, 3), (4, 4)], axis, axis)
    assert path == "M0 0L1 1M3 3L4 4"


def test_the_outline_of_a_histogram_is_closed_at_zero() -> None:
    x, y = geometry.axis([0, 2], 0, 20), geometry.bar_axis([0, 1], 100, 0)
    assert geometry.area([0, 1, 2], [0.5, 1], x, y) == "M0 100V50H10V0H20V100Z"
