"""validate_statistics on statistics that TFDV made."""

import ast
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from kfp_hybrid.components.data_validation.infer_schema.infer import infer_schema
from kfp_hybrid.components.data_validation.validate_statistics import severity, validate
from kfp_hybrid.components.data_validation.validate_statistics.validate import Validation
from kfp_hybrid.step import StepError

ROWS = 400
DRIFT = {"drift_threshold": 0.1}


def flights(shift: float = 0.0, **columns: Any) -> pd.DataFrame:
    random = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "carrier": random.choice(["UA", "AA", "DL"], ROWS),
            "temp": random.normal(50 + shift, 10, ROWS),
            "distance": random.integers(100, 3000, ROWS),
            "late": random.integers(0, 2, ROWS),
        }
    )
    return frame.assign(**columns)


def write_statistics(path: Path, **splits: pd.DataFrame) -> Path:
    import tensorflow_data_validation as tfdv

    everything = statistics_pb2.DatasetFeatureStatisticsList()
    for name, frame in splits.items():
        if len(frame):
            everything.datasets.append(tfdv.generate_statistics_from_dataframe(frame).datasets[0])
        else:
            everything.datasets.add()
        everything.datasets[-1].name = name
    path.mkdir()
    (path / "stats.pb").write_bytes(everything.SerializeToString())
    return path


Check = Callable[..., Validation]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Infer a schema from ordinary training data and validate it together with the given splits."""

    def run(constraints: dict[str, Any] | None = None, train: pd.DataFrame | None = None, **options: Any) -> Validation:
        splits = options.pop("splits", {})
        both = write_statistics(tmp_path / "statistics", train=flights() if train is None else train, **splits)
        infer_schema(both, tmp_path / "schema", constraints=constraints)
        return validate.validate_statistics(both, tmp_path / "schema", **options)

    return run


def kinds(validation: Validation) -> list[tuple[str, str, str, str]]:
    return [(finding.severity, finding.split, finding.feature, finding.kind) for finding in validation.findings]


def test_data_that_agree_are_valid(check: Check) -> None:
    validation = check(splits={"eval": flights()})
    assert validation.valid and not validation.findings
    assert validation.reason == "No anomalies in splits train and eval: all 4 features agree with the schema."
    assert validation.metrics == {"errors": 0, "warnings": 0, "ignored": 0, "features_with_anomalies": 0}


def test_a_value_outside_the_domain_is_an_error_that_names_feature_and_split(check: Check) -> None:
    validation = check(splits={"eval": flights(carrier=["UA"] * (ROWS - 40) + ["ZZ"] * 40)})
    assert kinds(validation) == [("error", "eval", "carrier", "ENUM_TYPE_UNEXPECTED_STRING_VALUES")]
    assert not validation.valid
    assert validation.reason == (
        "1 error in splits train and eval; the worst is feature carrier of split eval: "
        "examples contain values missing from the schema: ZZ (~10%)."
    )


def test_a_new_column_is_a_warning_and_a_missing_one_an_error(check: Check) -> None:
    validation = check(splits={"eval": flights(gate="A1").drop(columns="distance")})
    assert kinds(validation) == [
        ("error", "eval", "distance", "SCHEMA_MISSING_COLUMN"),
        ("warning", "eval", "gate", "SCHEMA_NEW_COLUMN"),
    ]
    assert check_reason_is_one_line(validation)


def check_reason_is_one_line(validation: Validation) -> bool:
    return "\n" not in validation.reason and validation.reason.endswith(".")


def test_a_split_without_rows_is_an_error(check: Check) -> None:
    validation = check(splits={"eval": flights().head(0)}, drift_splits={"eval": "train"})
    assert kinds(validation) == [("error", "eval", "", "NO_DATA_IN_SPAN")]
    assert "the worst is split eval: the split has no rows" in validation.reason


def test_an_environment_says_which_features_there_are(check: Check, tmp_path: Path) -> None:
    serving = {"environments": {"SERVING": {"without": ["late"]}}}
    without_label = flights().drop(columns="late")
    assert check(serving, splits={"serving": without_label}, environment="TRAINING").count("error") == 1
    again = validate.validate_statistics(
        write_statistics(tmp_path / "serving", serving=without_label), tmp_path / "schema", environment="SERVING"
    )
    assert again.valid and not again.findings


def test_drift_between_splits_is_a_warning_above_the_threshold(check: Check) -> None:
    validation = check(DRIFT, splits={"eval": flights(shift=30)}, drift_splits={"eval": "train"})
    assert kinds(validation) == [("warning", "eval", "temp", "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH")]
    assert validation.valid
    assert "divergence between eval and train is 0." in validation.findings[0].description
    assert validation.metrics["largest_drift_distance"] == pytest.approx(
        max(d.value for d in validation.distances), abs=1e-6
    )


def test_a_drift_below_the_threshold_is_measured_and_no_anomaly(check: Check) -> None:
    validation = check(DRIFT, splits={"eval": flights(shift=0.5)}, drift_splits={"eval": "train"})
    assert not validation.findings
    temp = next(distance for distance in validation.distances if distance.feature == "temp")
    assert 0 < temp.value < temp.threshold == 0.1  # type: ignore[operator]


def test_features_without_a_threshold_are_measured_too(check: Check) -> None:
    validation = check(splits={"eval": flights(shift=80, carrier="UA")}, drift_splits={"eval": "train"})
    distances = {d.feature: d for d in validation.distances}
    assert set(distances) == {"carrier", "temp", "distance", "late"}
    assert all(d.threshold is None and not d.exceeded for d in distances.values())
    assert distances["temp"].value > 0.9
    assert distances["carrier"].measure == "L_INFTY"
    assert not validation.findings


def test_drift_from_a_previous_span_and_between_splits_are_told_apart(check: Check, tmp_path: Path) -> None:
    previous = write_statistics(tmp_path / "previous", week=flights(shift=-30))
    validation = check(
        DRIFT, splits={"eval": flights(shift=30)}, drift_splits={"eval": "train"}, previous_statistics=previous
    )
    pairs = [(f.split, f.comparison.older.name) for f in validation.findings if f.comparison]
    assert sorted(pairs) == [("eval", "previous"), ("eval", "train"), ("train", "previous")]
    assert validation.findings[0].split == "eval" and "eval and previous" in validation.findings[0].description


def test_a_split_is_compared_with_the_split_of_its_name(
    check: Check, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    previous = write_statistics(tmp_path / "previous", train=flights(), test=flights(shift=50))
    validation = check(DRIFT, splits={"eval": flights()}, previous_statistics=previous)
    assert [(c.newer.name, c.older.name) for c in validation.comparisons] == [("train", "previous train")]
    assert not validation.findings
    assert "split eval is not checked for drift: the previous statistics have only train, test" in caplog.text


def test_statistics_that_share_no_split_are_refused(check: Check, tmp_path: Path) -> None:
    previous = write_statistics(tmp_path / "previous", a=flights(), b=flights())
    with pytest.raises(StepError, match=r"have the splits a, b, and this run has train; at least one name must agree"):
        check(previous_statistics=previous)


def test_skew_is_measured_against_serving_data(check: Check, tmp_path: Path) -> None:
    serving = write_statistics(tmp_path / "serving", serving=flights(carrier=["UA"] * 300 + ["AA"] * 100))
    validation = check({"features": {"carrier": {"skew_threshold": 0.1}}}, serving_statistics=serving)
    assert kinds(validation) == [("warning", "train", "carrier", "COMPARATOR_L_INFTY_HIGH")]
    assert "between train and serving" in validation.findings[0].description
    assert validation.metrics["largest_skew_distance"] > 0.3
    assert "largest_drift_distance" not in validation.metrics


def test_slices_are_not_validated(check: Check, tmp_path: Path) -> None:
    check()
    file = tmp_path / "statistics/stats.pb"
    read = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
    read.datasets.add(name="train/carrier_UA", num_examples=5)
    file.write_bytes(read.SerializeToString())
    validation = validate.validate_statistics(tmp_path / "statistics", tmp_path / "schema")
    assert [side.name for side in validation.splits] == ["train"]
    assert not validation.findings


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": "error"}, ["error", "error"]),
        ({"temp": "error"}, ["error", "error"]),
        ({"carrier": "ignore"}, ["warning"]),
        ({"carrier": {"ENUM_TYPE_UNEXPECTED_STRING_VALUES": "warning"}}, ["warning", "warning"]),
        ({"carrier": {"SCHEMA_NEW_COLUMN": "ignore"}, "ENUM_TYPE_UNEXPECTED_STRING_VALUES": "ignore"}, ["warning"]),
        ({"temp": {"COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": "error"}, "carrier": "warning"}, ["error", "warning"]),
        (
            {"temp": {"COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": "ignore"},
             "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": "error"},
            ["error"],
        ),
    ],
)  # fmt: skip
def test_the_most_particular_severity_wins(check: Check, levels: dict[str, Any], expected: list[str]) -> None:
    validation = check(
        DRIFT,
        splits={"eval": flights(shift=30, carrier=["UA", "AA", "DL"] * 132 + ["ZZ"] * 4)},
        drift_splits={"eval": "train"},
        severity=levels,
    )
    assert [finding.severity for finding in validation.findings] == expected
    assert validation.valid == ("error" not in expected)
    assert validation.metrics["ignored"] == 2 - len(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"environment": "SERVING"}, "no environment 'SERVING' in the schema; its environments: none"),
        ({"drift_splits": {"eval": "train"}}, "no split 'eval' for drift_splits in the statistics; valid: train"),
        ({"drift_splits": {"train": "train"}}, "compares split 'train' with itself"),
        (
            {"severity": {"COMPARATOR_L_INFTY": "error"}},
            "unknown feature or kind .* did you mean COMPARATOR_L_INFTY_HIGH",
        ),
        ({"severity": {"carrier": {"NOPE": "error"}}}, "unknown kind of anomaly 'NOPE'"),
        ({"severity": {"carrier": "fatal"}}, "is 'fatal'; it must be one of: error, warning, ignore"),
        ({"severity": {"SCHEMA_NEW_COLUMN": {"carrier": "error"}}}, "SCHEMA_NEW_COLUMN is no feature"),
        ({"previous_statistics": Path("/nowhere")}, "no statistics in /nowhere"),
    ],
)
def test_a_mistake_gets_one_line(check: Check, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StepError, match=message) as error:
        check(**options)
    assert "\n" not in str(error.value)


def test_default_warnings_are_kinds_that_exist() -> None:
    assert set(severity.KINDS) >= severity.DEFAULT_WARNINGS


def test_the_documentation_names_every_default_warning() -> None:
    text = (Path(severity.__file__).parent / "docs.md").read_text(encoding="utf-8")
    warnings = "\n".join(line for line in text.splitlines() if "| warning |" in line)
    assert {kind for kind in severity.KINDS if f"`{kind}`" in warnings} == severity.DEFAULT_WARNINGS


def test_the_anomalies_agree_with_those_of_tfdv(check: Check, tmp_path: Path) -> None:
    import tensorflow_data_validation as tfdv

    evaluated = flights(shift=30, carrier="ZZ", gate="A1").drop(columns="late")
    validation = check(DRIFT, splits={"eval": evaluated}, drift_splits={"eval": "train"})
    validate.write_anomalies(validation, tmp_path / "anomalies")
    assert sorted(path.name for path in (tmp_path / "anomalies").iterdir()) == ["eval.pbtxt", "train.pbtxt"]
    ours = text_format.Parse((tmp_path / "anomalies/eval.pbtxt").read_text(), anomalies_pb2.Anomalies())

    read = statistics_pb2.DatasetFeatureStatisticsList.FromString((tmp_path / "statistics/stats.pb").read_bytes())
    train, other = (statistics_pb2.DatasetFeatureStatisticsList(datasets=[d]) for d in read.datasets)
    schema = text_format.Parse((tmp_path / "schema/schema.pbtxt").read_text(), schema_pb2.Schema())
    theirs = tfdv.validate_statistics(other, schema, previous_statistics=train)

    def reasons(anomalies: anomalies_pb2.Anomalies) -> dict[str, set[int]]:
        return {name: {reason.type for reason in info.reason} for name, info in anomalies.anomaly_info.items()}

    assert reasons(ours) == reasons(theirs)
    assert len(reasons(ours)["carrier"]) == 2
    assert ours.baseline == schema
    new_column = ours.anomaly_info["gate"]
    assert new_column.severity == anomalies_pb2.AnomalyInfo.WARNING
    assert ours.anomaly_info["late"].severity == anomalies_pb2.AnomalyInfo.ERROR
    moved = {info.path.step[0]: info.drift_measurements[0].value for info in ours.drift_skew_info}
    assert moved["temp"] == pytest.approx(
        next(i.drift_measurements[0].value for i in theirs.drift_skew_info if i.path.step[0] == "temp")
    )


def test_every_anomaly_and_the_reason_are_logged(check: Check, caplog: pytest.LogCaptureFixture) -> None:
    validation = check(splits={"eval": flights(carrier="ZZ", gate="A1")})
    with caplog.at_level(logging.INFO):
        validate.log(validation)
    assert [record.levelname for record in caplog.records[-3:]] == ["ERROR", "WARNING", "INFO"]
    assert caplog.messages[-1] == f"not valid: {validation.reason}"


COMPONENT = Path(validate.__file__).with_name("component.py")


def run_component(tmp_path: Path, parameters: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the component's function the way its package does on every target."""
    source = COMPONENT.read_text(encoding="utf-8")
    function = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    function.decorator_list.clear()
    module = tmp_path / "ephemeral_component.py"
    module.write_text(f"from kfp import dsl\nfrom kfp.dsl import *\nfrom typing import *\n{ast.unparse(function)}\n")

    def artifact(name: str, type_: str, path: Path) -> dict[str, Any]:
        return {"artifacts": [{"name": name, "type": {"schemaTitle": f"system.{type_}"}, "uri": str(path)}]}

    executor_input = {
        "inputs": {
            "parameterValues": parameters,
            "artifacts": {name: artifact(name, "Artifact", tmp_path / name) for name in ("statistics", "schema")},
        },
        "outputs": {
            "parameters": {name: {"outputFile": str(tmp_path / "out" / name)} for name in ("valid", "reason")},
            "artifacts": {
                name: artifact(name, type_, tmp_path / "out" / name)
                for name, type_ in (("anomalies", "Artifact"), ("report", "HTML"), ("metrics", "Metrics"))
            },
            "outputFile": str(tmp_path / "out/executor_output.json"),
        },
    }
    return subprocess.run(
        [sys.executable, "-m", "kfp.dsl.executor_main", "--component_module_path", str(module),
         "--executor_input", json.dumps(executor_input), "--function_to_execute", "validate_statistics"],
        env={**os.environ, "_KFP_RUNTIME": "true"}, capture_output=True, text=True,
    )  # fmt: skip


def test_the_component_hands_on_what_was_found(check: Check, tmp_path: Path) -> None:
    check(DRIFT, splits={"eval": flights(shift=30)})
    done = run_component(tmp_path, {"drift_splits": {"eval": "train"}})
    assert done.returncode == 0, done.stderr
    output = json.loads((tmp_path / "out/executor_output.json").read_text())
    assert output["parameterValues"]["valid"] is True
    assert "temp of split eval" in output["parameterValues"]["reason"]
    metadata = {name: entry["artifacts"][0]["metadata"] for name, entry in output["artifacts"].items()}
    assert metadata["metrics"]["warnings"] == metadata["anomalies"]["warnings"] == 1
    assert "<title>Data validation</title>" in (tmp_path / "out/report").read_text()


def test_a_step_that_fails_on_anomalies_writes_them_first(check: Check, tmp_path: Path) -> None:
    validation = check(splits={"eval": flights(carrier="ZZ")})
    done = run_component(tmp_path, {"fail_on_anomalies": True})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {validation.reason}")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out/report").exists() and (tmp_path / "out/anomalies/eval.pbtxt").exists()
