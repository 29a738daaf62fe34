"""The HTML report of validate_statistics."""

import html.parser
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tensorflow_metadata.proto.v0 import statistics_pb2

from kfp_hybrid.components.data_validation.infer_schema.infer import infer_schema
from kfp_hybrid.components.data_validation.validate_statistics.report import write_report
from kfp_hybrid.components.data_validation.validate_statistics.validate import validate_statistics

EVIL = "<script>alert('x')</script>"
NUMBERS, TEXTS = 60, 40


class Page(html.parser.HTMLParser):
    """What a browser sees in a page: elements with their attributes, and each script's text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str, class_: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and class_ in [*(a.get("class") or "").split(), ""]]


def wide(rows: int, shift: float, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        f"number_with_a_long_name_{i}": random.lognormal(i % 7, 1, rows) + shift * (i % 5) for i in range(NUMBERS // 2)
    }
    columns |= {f"whole_{i}": random.integers(0, 10 ** (1 + i % 6), rows) for i in range(NUMBERS // 2)}
    values = [f"a rather long value, number {i}" for i in range(500)] + [EVIL] * 100
    columns |= {f"text_{i}": random.choice(values[i * 5 :], rows) for i in range(TEXTS)}
    return pd.DataFrame(columns)


def write_statistics(path: Path, **splits: pd.DataFrame) -> Path:
    import tensorflow_data_validation as tfdv

    everything = statistics_pb2.DatasetFeatureStatisticsList()
    for name, frame in splits.items():
        everything.datasets.append(tfdv.generate_statistics_from_dataframe(frame).datasets[0])
        everything.datasets[-1].name = name
    path.mkdir()
    (path / "stats.pb").write_bytes(everything.SerializeToString())
    return path


def report(folder: Path, statistics: Path, **options: Any) -> Page:
    constraints = {"drift_threshold": 0.02, **options.pop("constraints", {})}
    infer_schema(statistics, folder / "schema", constraints=constraints)
    write_report(validate_statistics(statistics, folder / "schema", **options), folder / "report.html")
    return Page((folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def hundred_features(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("report")
    statistics = write_statistics(folder / "statistics", train=wide(1500, 0, 1), eval=wide(1000, 2, 2))
    serving = write_statistics(folder / "serving", serving=wide(1000, 1, 3))
    previous = write_statistics(folder / "previous", week=wide(1000, 1, 4))
    return report(
        folder,
        statistics,
        drift_splits={"eval": "train"},
        serving_statistics=serving,
        previous_statistics=previous,
    )


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("odd")
    train = pd.DataFrame({EVIL: ["a", EVIL] * 50, "gone": [1, 2] * 50, "none": [1.5, 2.5] * 50, "same": [5.0] * 100,
                          "precip": [0.0] * 99 + [1.0]})  # fmt: skip
    evaluated = pd.DataFrame({EVIL: ["a", "b" + EVIL] * 50, "none": np.full(100, np.nan), "same": [5.0] * 100,
                              "new": ["x" * 10_000] * 100, "precip": [0.0] * 100})  # fmt: skip
    statistics = write_statistics(folder / "statistics", train=train, eval=evaluated)
    return report(folder, statistics, drift_splits={"eval": "train"})


def test_a_hundred_features_with_four_sides_stay_below_two_megabytes(hundred_features: Page) -> None:
    assert len(hundred_features.all("article", "feature")) == NUMBERS + TEXTS
    assert len(hundred_features.all("svg")) == NUMBERS + TEXTS
    assert [a["title"] for a in hundred_features.all("th", "s3")] == ["serving"] * (NUMBERS + TEXTS)
    assert len(hundred_features.text.encode()) < 2_000_000


def test_nothing_is_loaded_from_anywhere(hundred_features: Page, odd: Page) -> None:
    for page in (hundred_features, odd):
        assert not re.search(r"https?:|@import|url\(", page.text)
        assert not {"link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in page.elements}
        assert not any({"src", "srcset", "action", "xlink:href"} & set(attrs) for _, attrs in page.elements)
        assert all((a.get("href") or "#").startswith("#") for _, a in page.elements)


def test_names_and_values_cannot_become_markup(odd: Page) -> None:
    assert len(odd.all("script")) == 1
    assert EVIL not in odd.text
    assert EVIL in [attrs["data-name"] for attrs in odd.all("article", "feature")]
    assert not any(name.startswith("on") for _, attrs in odd.elements for name in attrs)


def test_a_long_value_is_cut(odd: Page) -> None:
    assert "x" * 200 not in odd.text
    assert len(odd.text) < 100_000


def test_anomalies_come_first_with_severity_feature_and_kind(odd: Page) -> None:
    table = odd.text[odd.text.index("<h2>Anomalies") : odd.text.index("<h2>Features")]
    rows = re.findall(
        r'badge (\w+)">(\w+)</span></td><td>eval</td><td><a href="#f\d+">(.*?)</a></td><td>.*?"kind">(\w+)<', table
    )
    assert rows[:2] == [
        ("bad", "error", "gone", "SCHEMA_MISSING_COLUMN"),
        ("bad", "error", "none", "FEATURE_TYPE_NOT_PRESENT"),
    ]
    assert ("warn", "warning", "new", "SCHEMA_NEW_COLUMN") in rows
    assert '<span class="badge bad">Not valid</span>' in odd.text


def card(page: Page, name: str) -> str:
    number = next(a["id"] for a in page.all("article", "feature") if a["data-name"] == name)
    return page.text[page.text.index(f'id="{number}"') :].split("</article>")[0]


def test_a_side_without_values_shows_dashes_and_no_curve(odd: Page) -> None:
    text = card(odd, "none")
    assert "<tr><th>missing</th><td>0 %</td><td>100 %</td></tr>" in text
    assert "<tr><th>mean</th><td>2</td><td>–</td></tr>" in text
    assert re.search(r'class="area s1" d=""', text) and re.search(r'class="area s0" d="M', text)
    assert "<tr><th>count</th><td>100</td><td>–</td></tr>" in card(odd, "gone")


def test_the_figures_of_both_sides_stand_side_by_side(odd: Page) -> None:
    text = card(odd, "precip")
    for row in ("zeros</th><td>99 %</td><td>100 %<", "max</th><td>1</td><td>0<", "median</th><td>0</td><td>0<"):
        assert row in text
    assert 'data-missing="0.0"' in text


def test_features_can_be_sorted_and_filtered_by_what_they_carry(hundred_features: Page) -> None:
    cards = hundred_features.all("article", "feature")
    distances = [float(attrs["data-distance"] or "nan") for attrs in cards]
    assert max(distances) > 0.5 and min(distances) >= 0
    assert {attrs["data-type"] for attrs in cards} == {"number", "text"}
    assert {int(attrs["data-order"] or -1) for attrs in cards} == set(range(NUMBERS + TEXTS))


def test_features_with_the_gravest_anomalies_come_first(hundred_features: Page, odd: Page) -> None:
    for page in (hundred_features, odd):
        gravity = [
            (int(a["data-anomaly"] or 0), float(a["data-distance"] or 0)) for a in page.all("article", "feature")
        ]
        assert gravity == sorted(gravity, reverse=True)
        assert gravity[0][0] > 0 == gravity[-1][0]


def test_drift_is_shown_with_its_threshold(hundred_features: Page) -> None:
    text = card(hundred_features, "number_with_a_long_name_4")
    shown = re.findall(r'<span title="(.*?)">', text)
    assert len(shown) == 3 and set(shown) < {
        "drift train → eval", "drift previous → train", "drift previous → eval", "skew serving → train",
        "skew serving → eval",
    }  # fmt: skip
    assert 'class="meter over" title="Jensen-Shannon divergence, threshold 0.02"' in text
    assert 'class="meter" title="Jensen-Shannon divergence"' in text  # no skew threshold was given


def test_data_without_a_second_side_are_drawn_alone(tmp_path: Path) -> None:
    page = report(tmp_path, write_statistics(tmp_path / "statistics", train=wide(50, 0, 1)[["whole_0", "text_0"]]))
    assert "Largest distances" not in page.text
    assert '<span class="badge good">Valid</span>' in page.text
    assert len(page.all("svg")) == 2
