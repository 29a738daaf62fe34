"""The interface of validate_statistics."""

from typing import NamedTuple, Optional

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.VALIDATION, install_kfp_package=False)
def validate_statistics(
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Input[dsl.Artifact],
    anomalies: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    serving_statistics: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045 - kfp knows no other spelling
    previous_statistics: Optional[dsl.Input[dsl.Artifact]] = None,  # noqa: UP045
    environment: str = "",
    drift_splits: dict = {},  # noqa: B006
    severity: dict = {},  # noqa: B006
    fail_on_anomalies: bool = False,
) -> NamedTuple("Outputs", [("valid", bool), ("reason", str)]):  # type: ignore[valid-type]
    """Validate every split against the schema, and look for skew and drift.

    Args:
        statistics: Statistics of the data to validate (from generate_statistics). Every split is validated; slices are
            not.
        schema: What the data must agree with (from infer_schema).
        serving_statistics: Statistics of serving data, to detect skew. A split is compared with the split of the same
            name, or with the only one.
        previous_statistics: Statistics of a previous span, to detect drift. Splits are matched in the same way.
        environment: One of the schema's environments, such as SERVING. Empty validates all features.
        drift_splits: Splits to compare within this run: {"eval": "train"} looks for drift from train to eval.
        severity: What is an error, a warning, or ignored, where the default does not fit: by kind of anomaly, by
            feature, or both, as {"COMPARATOR_L_INFTY_HIGH": "error", "visib": "ignore", "dest":
            {"ENUM_TYPE_UNEXPECTED_STRING_VALUES": "warning"}}. The kinds are in the component's documentation.
        fail_on_anomalies: Fail the step when an anomaly is an error, after the outputs are written. Otherwise it
            succeeds, and `valid` says what was found.

    Returns:
        anomalies: A directory with one <split>.pbtxt per split, tensorflow.metadata.v0.Anomalies as text proto.
            Metadata: valid, errors, warnings.
        report: What was found, and all data sets side by side, in one HTML page.
        metrics: errors, warnings, ignored, features_with_anomalies, and where data were compared largest_drift_distance
            and largest_skew_distance.
        valid: Whether no anomaly is an error.
        reason: One sentence that says what was found and names the worst feature and its split.
    """
    from pathlib import Path

    from kfp_hybrid.components.data_validation.validate_statistics import report as page
    from kfp_hybrid.components.data_validation.validate_statistics import validate
    from kfp_hybrid.step import StepError, step

    with step():
        validation = validate.validate_statistics(
            Path(statistics.path),
            Path(schema.path),
            environment=environment,
            serving_statistics=Path(serving_statistics.path) if serving_statistics else None,
            previous_statistics=Path(previous_statistics.path) if previous_statistics else None,
            drift_splits=drift_splits,
            severity=severity,
        )
        validate.write_anomalies(validation, Path(anomalies.path))
        page.write_report(validation, Path(report.path))
        validate.log(validation)
        for name, value in validation.metrics.items():
            metrics.log_metric(name, value)
        anomalies.metadata.update(validation.metadata)
        if fail_on_anomalies and not validation.valid:
            raise StepError(f"{validation.reason} The report is {report.path}")
        return validation.valid, validation.reason
