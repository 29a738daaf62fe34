"""infer_schema on statistics that TFDV made."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from kfp_hybrid.components.data_validation.infer_schema.infer import Inference, infer_schema
from kfp_hybrid.step import StepError

FLIGHTS = pd.DataFrame(
    {
        "carrier": ["UA", "AA", "DL", "UA"] * 50,
        "distance": [500, 1000, 1500, 2000] * 50,
        "temp": [40.5, None, 61.0, 70.25] * 50,
        "late": [0, 1, 0, 0] * 50,
    }
)


@pytest.fixture(scope="module")
def statistics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import tensorflow_data_validation as tfdv

    path = tmp_path_factory.mktemp("statistics")
    train = tfdv.generate_statistics_from_dataframe(FLIGHTS).datasets[0]
    train.name = "train"
    empty = statistics_pb2.DatasetFeatureStatistics(name="empty")
    piece = statistics_pb2.DatasetFeatureStatistics(name="train/carrier_UA", num_examples=100)
    both = statistics_pb2.DatasetFeatureStatisticsList(datasets=[train, empty, piece])
    (path / "stats.pb").write_bytes(both.SerializeToString())
    return path


@pytest.fixture
def infer(statistics: Path, tmp_path: Path) -> Any:
    def run(**options: Any) -> tuple[dict[str, schema_pb2.Feature], schema_pb2.Schema]:
        infer_schema(statistics, tmp_path / "schema", **options)
        schema = text_format.Parse((tmp_path / "schema/schema.pbtxt").read_text(), schema_pb2.Schema())
        return {feature.name: feature for feature in schema.feature}, schema

    return run


def test_without_demands_the_schema_is_what_tfdv_infers(infer: Any, statistics: Path) -> None:
    import tensorflow_data_validation as tfdv

    _, schema = infer()
    read = statistics_pb2.DatasetFeatureStatisticsList.FromString((statistics / "stats.pb").read_bytes())
    assert schema == tfdv.infer_schema(statistics_pb2.DatasetFeatureStatisticsList(datasets=[read.datasets[0]]))


def test_the_result_counts_the_features(statistics: Path, tmp_path: Path) -> None:
    assert infer_schema(statistics, tmp_path / "schema") == Inference(4, None)
    assert [path.name for path in (tmp_path / "schema").iterdir()] == ["schema.pbtxt"]


def test_a_text_feature_with_too_many_values_gets_no_domain(infer: Any) -> None:
    features, schema = infer(max_domain_size=2)
    assert not features["carrier"].domain
    assert not schema.string_domain


def test_thresholds_fit_the_type_of_the_feature_and_the_particular_one_wins(infer: Any) -> None:
    features, _ = infer(
        constraints={
            "drift_threshold": 0.1,
            "skew_threshold": 0.2,
            "features": {"temp": {"drift_threshold": 0.3}, "late": {"drift_threshold": 1.0}},
        }
    )
    assert features["carrier"].drift_comparator.infinity_norm.threshold == 0.1
    assert features["carrier"].skew_comparator.infinity_norm.threshold == 0.2
    assert features["distance"].drift_comparator.jensen_shannon_divergence.threshold == 0.1
    assert features["temp"].drift_comparator.jensen_shannon_divergence.threshold == 0.3
    assert not features["late"].HasField("drift_comparator")


def test_numbers_that_arrive_as_floats_limit_whole_numbers(infer: Any) -> None:
    features, _ = infer(constraints={"features": {"distance": {"range": [0.0, 6000.0]}, "temp": {"min": -30.5}}})
    assert (features["distance"].int_domain.min, features["distance"].int_domain.max) == (0, 6000)
    assert features["temp"].float_domain.min == -30.5
    assert not features["temp"].float_domain.HasField("max")


def test_a_feature_that_may_be_missing_has_no_fixed_shape(infer: Any) -> None:
    features, _ = infer(constraints={"features": {"distance": {"required": False}, "carrier": {"max_missing": 0.25}}})
    assert not features["distance"].HasField("presence")
    assert features["carrier"].presence.min_fraction == 0.75
    for name in ("distance", "carrier"):
        assert features[name].WhichOneof("shape_type") == "value_count"


def test_a_required_feature_must_be_in_every_row(infer: Any) -> None:
    features, _ = infer(constraints={"features": {"temp": {"required": True}}})
    assert features["temp"].presence.min_fraction == 1


def test_a_domain_replaces_the_inferred_one(infer: Any) -> None:
    constraints = {"min_domain_mass": 0.99, "features": {"carrier": {"domain": ["UA", "WN"]}}}
    features, schema = infer(constraints=constraints)
    assert features["carrier"].domain == "carrier"
    assert [(d.name, list(d.value)) for d in schema.string_domain] == [("carrier", ["UA", "WN"])]
    assert features["carrier"].distribution_constraints.min_domain_mass == 0.99
    assert not features["distance"].HasField("distribution_constraints")


def test_an_empty_domain_allows_any_text(infer: Any) -> None:
    features, schema = infer(constraints={"min_domain_mass": 0.9, "features": {"carrier": {"domain": []}}})
    assert not features["carrier"].domain and not schema.string_domain
    assert not features["carrier"].HasField("distribution_constraints")


def test_an_environment_lacks_its_features_and_training_has_all(infer: Any) -> None:
    features, schema = infer(constraints={"environments": {"SERVING": {"without": ["late"]}}})
    assert list(schema.default_environment) == ["TRAINING", "SERVING"]
    assert list(features["late"].not_in_environment) == ["SERVING"]
    assert not features["temp"].not_in_environment


def test_an_override_wins_over_inference_and_constraints(infer: Any) -> None:
    features, schema = infer(
        constraints={"features": {"distance": {"range": [0, 6000]}}},
        schema_overrides="""
            feature { name: "distance" int_domain { max: 9000 } presence { min_fraction: 0.5 } }
            string_domain { name: "carrier" value: "UA" }""",
    )
    assert (features["distance"].int_domain.min, features["distance"].int_domain.max) == (0, 9000)
    assert (features["distance"].presence.min_fraction, features["distance"].presence.min_count) == (0.5, 1)
    assert features["distance"].type == schema_pb2.INT
    assert list(schema.string_domain[0].value) == ["UA"]


NUMBER_BY_VALUE = 'feature { name: "distance" drift_comparator { infinity_norm { threshold: 0.1 } } }'
CURATED = """
feature { name: "gate" type: BYTES }
feature { name: "carrier" type: BYTES domain: "carrier" presence { min_fraction: 1 min_count: 1 }
          shape { dim { size: 1 } } drift_comparator { infinity_norm { threshold: 0.05 } }
          not_in_environment: "SERVING" }
feature { name: "distance" type: FLOAT presence { min_fraction: 1 min_count: 1 } shape { dim { size: 1 } }
          float_domain { min: 0 } }
string_domain { name: "carrier" value: "UA" value: "AA" value: "WN" }
"""


def test_a_curated_schema_is_kept_and_its_differences_are_reported(
    statistics: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        result = infer_schema(statistics, tmp_path / "schema", curated_schema_text=CURATED)
    kept = text_format.Parse((tmp_path / "schema/schema.pbtxt").read_text(), schema_pb2.Schema())
    assert kept == text_format.Parse(CURATED, schema_pb2.Schema())
    lines = (tmp_path / "schema/diff.txt").read_text().splitlines()[2:]
    assert lines == [
        "- gate: only in the curated schema (BYTES, optional)",
        "~ carrier: domain: only in the curated schema: WN",
        "~ carrier: domain: only in the data: DL",
        "~ distance: type: curated FLOAT, data INT",
        "+ temp: only in the data (FLOAT, optional)",
        "+ late: only in the data (INT, required)",
    ]
    assert result == Inference(3, 6)
    assert all(line in caplog.text for line in lines)


def test_a_curated_schema_that_agrees_has_no_differences(statistics: Path, tmp_path: Path) -> None:
    infer_schema(statistics, tmp_path / "first")
    as_artifact = infer_schema(statistics, tmp_path / "second", curated_schema=tmp_path / "first")
    as_path = infer_schema(statistics, tmp_path / "third", curated_schema_text=str(tmp_path / "first/schema.pbtxt"))
    assert as_artifact == as_path == Inference(4, 0)
    assert (tmp_path / "second/diff.txt").read_text() == "The curated schema and the data agree.\n"
    assert (tmp_path / "second/schema.pbtxt").read_bytes() == (tmp_path / "first/schema.pbtxt").read_bytes()


def test_what_only_a_curator_can_know_is_no_difference(statistics: Path, tmp_path: Path) -> None:
    infer_schema(statistics, tmp_path / "plain")
    demands = {"drift_threshold": 0.1, "features": {"temp": {"range": [-40, 130]}}, "environments": {"SERVING": {}}}
    infer_schema(statistics, tmp_path / "curated", constraints=demands)
    result = infer_schema(statistics, tmp_path / "schema", curated_schema=tmp_path / "curated")
    assert result.differences == 0


def test_constraints_take_part_in_the_comparison_with_a_curated_schema(statistics: Path, tmp_path: Path) -> None:
    infer_schema(statistics, tmp_path / "curated")
    result = infer_schema(
        statistics,
        tmp_path / "schema",
        curated_schema=tmp_path / "curated",
        constraints={"features": {"temp": {"required": True}}},
    )
    assert result.differences == 1
    assert "~ temp: presence: curated {min_count: 1}, data {min_fraction: 1.0 min_count: 1}" in (
        tmp_path / "schema/diff.txt"
    ).read_text()  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "no split 'dev'.* one of: train, empty"),
        ({"split": "train/carrier_UA"}, "no split"),
        ({"split": "empty"}, "split 'empty' has no rows"),
        ({"max_domain_size": -1}, "max_domain_size is -1"),
        ({"constraints": {"feature": {}}}, "unknown key 'feature' in constraints; valid: .*features"),
        ({"constraints": {"features": {"carier": {}}}}, "unknown feature 'carier'.* valid: carrier, distance"),
        ({"constraints": {"features": {"carrier": {"need": 1}}}}, "unknown key 'need'.* valid: required"),
        ({"constraints": {"features": {"carrier": 1}}}, "carrier is 1; give it as an object"),
        ({"constraints": {"features": []}}, "constraints.features is"),
        ({"constraints": {"features": {"temp": {"required": 1}}}}, "required is 1; it must be true or false"),
        ({"constraints": {"features": {"temp": {"range": [5, 1]}}}}, "two numbers"),
        ({"constraints": {"features": {"temp": {"range": [0, float("nan")]}}}}, "two numbers"),
        ({"constraints": {"features": {"temp": {"range": [0, 1], "max": 2}}}}, "also min or max"),
        ({"constraints": {"features": {"temp": {"max_missing": 1.5}}}}, "a number from 0 to 1"),
        ({"constraints": {"features": {"temp": {"max_missing": 0.5, "required": True}}}}, "drop one"),
        ({"constraints": {"drift_threshold": True}}, "a number from 0 to 1"),
        ({"constraints": {"features": {"carrier": {"domain": "UA"}}}}, "a list of texts"),
        ({"constraints": {"features": {"distance": {"domain": ["a"]}}}}, "is for text"),
        ({"constraints": {"features": {"carrier": {"min": 1}}}}, "is for numbers"),
        ({"constraints": {"features": {"distance": {"range": [0.5, 10]}}}}, "give whole numbers"),
        ({"constraints": {"environments": {"SERVING": {"without": ["label"]}}}}, "unknown feature 'label'"),
        ({"constraints": {"environments": {"SERVING": ["late"]}}}, "give it as an object"),
        ({"constraints": {"environments": {"SERVING": {"features": []}}}}, "unknown key 'features'"),
        ({"schema_overrides": "feature {"}, "schema_overrides is not a schema"),
        (
            {"schema_overrides": 'feature { name: "gate" }'},
            "unknown feature 'gate' in schema_overrides; valid: carrier",
        ),
        ({"schema_overrides": NUMBER_BY_VALUE}, "distance.* is always 0 for numbers"),
        ({"curated_schema_text": "/nowhere/schema.pbtxt"}, "nor a file that exists: /nowhere/schema.pbtxt"),
        ({"curated_schema_text": 'features { name: "x" }'}, "curated_schema_text is not a schema.*1:1"),
        ({"curated_schema": Path("/nowhere"), "curated_schema_text": "x"}, "give one of the two"),
        ({"curated_schema": Path("/nowhere")}, "no schema in /nowhere"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(
    statistics: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(StepError, match=message) as error:
        infer_schema(statistics, tmp_path / "schema", **options)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_statistics_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"no statistics in .*stats\.pb"):
        infer_schema(tmp_path, tmp_path / "schema")
    (tmp_path / "stats.pb").write_bytes(b"\xff not statistics")
    with pytest.raises(StepError, match="holds no DatasetFeatureStatisticsList"):
        infer_schema(tmp_path, tmp_path / "schema")


def test_a_wrong_constraint_is_refused_before_tfdv_is_imported(statistics: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from kfp_hybrid.components.data_validation.infer_schema.infer import infer_schema
from kfp_hybrid.step import StepError
try:
    infer_schema(Path({str(statistics)!r}), Path({str(tmp_path / "schema")!r}), constraints={{"range": 1}})
except StepError:
    sys.exit(3 if "tensorflow" in sys.modules or "tensorflow_data_validation" in sys.modules else 0)
sys.exit(4)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
