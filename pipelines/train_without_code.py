"""Structured data prediction without code: AutoML on Vertex AI, the default model elsewhere."""

from kfp import dsl

from kfp_hybrid.components.data_processing.ingest_examples.component import ingest_examples
from kfp_hybrid.components.data_validation.generate_statistics.component import generate_statistics
from kfp_hybrid.components.data_validation.infer_schema.component import infer_schema
from kfp_hybrid.components.data_validation.validate_statistics.component import validate_statistics
from kfp_hybrid.components.deployment.report_rejection.component import report_rejection
from kfp_hybrid.targets import Target


def train_without_code(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="train-without-code", display_name="Train without code")
    def pipeline(
        source: str = "package://kfp_hybrid/samples/flights.csv.gz",
        label: str = "late",
        task: str = "binary",
        split_ratios: dict = {"train": 0.8, "eval": 0.2},
        key_columns: list = [],
        budget_hours: float = 1.0,
        strict: bool = True,
    ) -> None:
        """Validate a table, train a model on it without any code, and predict every row.

        Args:
            source: The data: a CSV, Parquet or TFRecord file, a directory or a pattern. The default is a sample.
            label: The column to predict.
            task: binary, multiclass or regression.
            split_ratios: The share of rows of each split.
            key_columns: The columns that identify a row: they decide its split and stand beside its prediction.
            budget_hours: The most that training may cost, in node hours, on Vertex AI.
            strict: Fail the run when the data are rejected, instead of ending it without a model.
        """
        ingested = target.configure(
            ingest_examples(source=source, split_ratios=split_ratios, key_columns=key_columns), secrets=["storage"]
        )
        examples = ingested.outputs["examples"]
        statistics = generate_statistics(examples=examples).outputs["statistics"]
        schema = infer_schema(statistics=statistics).outputs["schema"]
        validated = validate_statistics(statistics=statistics, schema=schema)
        with dsl.If(validated.outputs["valid"] == True, name="data-are-valid"):  # noqa: E712
            model = target.train_tabular(
                examples=examples,
                statistics=statistics,
                schema=schema,
                label=label,
                task=task,
                budget_hours=budget_hours,
            )
            target.predict_batch(model=model, examples=examples, key_columns=key_columns, resources="prediction")
        with dsl.Else(name="data-are-rejected"):
            rejected = report_rejection(gate="validate_statistics", reason=validated.outputs["reason"], strict=strict)
            target.configure(rejected, cache=False)

    return pipeline
