"""The main job: validate the data, train, evaluate, export for the edge, try in the model server, publish."""

from kfp import dsl

from kfp_hybrid.components.data_processing.ingest_examples.component import ingest_examples
from kfp_hybrid.components.data_validation.generate_statistics.component import generate_statistics
from kfp_hybrid.components.data_validation.infer_schema.component import infer_schema
from kfp_hybrid.components.data_validation.validate_statistics.component import validate_statistics
from kfp_hybrid.components.deployment.export_tflite.component import export_tflite
from kfp_hybrid.components.deployment.push_model.component import push_model
from kfp_hybrid.components.deployment.report_rejection.component import report_rejection
from kfp_hybrid.components.evaluation.evaluate_model.component import evaluate_model
from kfp_hybrid.components.inference.validate_serving.component import validate_serving
from kfp_hybrid.components.training.train_model.component import train_model
from kfp_hybrid.targets import Target


def train_and_publish(target: Target) -> dsl.base_component.BaseComponent:
    """The pipeline for `target`."""

    @dsl.pipeline(name="train-and-publish", display_name="Train and publish")
    def pipeline(
        source: str = "package://kfp_hybrid/samples/flights.csv.gz",
        label: str = "late",
        task: str = "auto",
        features: list = [],
        key_columns: list = [],
        split_ratios: dict = {"train": 0.8, "eval": 0.2},
        split_column: str = "",
        split_values: dict = {},
        span_column: str = "",
        spans: list = [],
        max_bad_fraction: float = 0.01,
        constraints: dict = {},
        curated_schema: str = "",
        severity: dict = {},
        drift_splits: dict = {"eval": "train"},
        module: str = "",
        hyperparameters: dict = {},
        epochs: int = 0,
        batch_size: int = 0,
        seed: int = 1,
        slice_columns: list = [],
        thresholds: dict = {},
        quantizations: list = ["float32", "dynamic_range", "float16", "int8", "aeq_weight_only", "aeq_int8"],
        select: str = "smallest",
        min_agreement: float = 0.0,
        max_size_bytes: int = 0,
        max_latency_ms: float = 0.0,
        max_serving_ms: float = 0.0,
        max_serving_memory_mb: float = 0.0,
        max_changed_decisions: float = 0.0,
        destination: str = "",
        keep: int = 5,
        service: str = "",
        canary_percent: int = 100,
        strict: bool = False,
    ) -> None:
        """Validate data, train a model, evaluate it, export it to TensorFlow Lite, try it in the server and publish it.

        Four gates stand on the way: the data must fit their schema, the model must reach its thresholds, the exported
        model must agree with its source, and the model server must answer with it as computed offline. What a gate
        rejects is not published; the reason is in the run.

        Args:
            source: The data: a CSV, Parquet or TFRecord file, a directory or a pattern. The default is a sample.
            label: The column to predict.
            task: binary, multiclass or regression; auto decides by the label.
            features: The columns to learn from; all that serving has, when empty.
            key_columns: The columns whose hash assigns a row to a split; the whole row, when empty.
            split_ratios: The share of rows of each split.
            split_column: Split by the values of this column instead, such as a month.
            split_values: With split_column: the values that belong to each split.
            span_column: Take only some spans of the data: the column that says to which span a row belongs.
            spans: With span_column: the spans to take.
            max_bad_fraction: The share of rows that may be unreadable before the run fails.
            constraints: What the schema must demand besides what the data show; see infer_schema.
            curated_schema: A schema to hold the data against instead of the inferred one, as text proto or a path.
            severity: Which anomalies are errors and which are warnings; see validate_statistics.
            drift_splits: Splits to compare as newer and older span, such as eval with train.
            module: Your own model: a Python module with build_model, inline or as a path. The default is wide and deep.
            hyperparameters: Handed to build_model; see train_model for those of the default model.
            epochs: How often to go through the training split at most; 0 goes by its size. Training stops early when
                it no longer helps.
            batch_size: Rows per training step; 0 goes by the size of the training split.
            seed: Makes training repeatable.
            slice_columns: Evaluate each value of these columns on its own too.
            thresholds: What the model must reach to be published; see evaluate_model.
            quantizations: The TensorFlow Lite variants to choose from; float32 is built in any case, to fall back on.
            select: Which accepted variant becomes the edge model: smallest, fastest, most-accurate or a name.
            min_agreement: The share of decisions that the edge model must share with the model; 0 for defaults.
            max_size_bytes: The largest edge model to accept; 0 for any.
            max_latency_ms: The largest p99 latency of the edge model to accept, one row on one thread; 0 for any.
            max_serving_ms: The largest p99 latency of the model server in validate_serving; 0 only reports it.
            max_serving_memory_mb: The most memory of the model server; 0 only reports it.
            max_changed_decisions: The share of rows that the published model may decide otherwise; 0 only reports it.
            destination: The directory in which models are published; inside the run, when empty.
            keep: How many published versions to keep.
            service: Serve the published model online under this name; not at all, when empty.
            canary_percent: With service: the share of requests that the new model answers until it is promoted.
            strict: Fail the run when a gate rejects, instead of ending it without publishing.
        """
        ingested = ingest_examples(
            source=source,
            split_ratios=split_ratios,
            key_columns=key_columns,
            split_column=split_column,
            split_values=split_values,
            span_column=span_column,
            spans=spans,
            max_bad_fraction=max_bad_fraction,
        )
        target.configure(ingested, secrets=["storage"])
        examples = ingested.outputs["examples"]
        statistics = generate_statistics(examples=examples).outputs["statistics"]
        schema = infer_schema(
            statistics=statistics, constraints=constraints, curated_schema_text=curated_schema
        ).outputs["schema"]
        validated = validate_statistics(
            statistics=statistics, schema=schema, drift_splits=drift_splits, severity=severity
        )
        with dsl.If(validated.outputs["valid"] == True, name="data-are-valid"):  # noqa: E712
            trained = target.train(
                train_model,
                examples=examples,
                statistics=statistics,
                schema=schema,
                label=label,
                task=task,
                features=features,
                module=module,
                hyperparameters=hyperparameters,
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
            )
            model = trained.outputs["model"]
            evaluated = evaluate_model(
                examples=examples, model=model, slice_columns=slice_columns, thresholds=thresholds
            )
            with dsl.If(evaluated.outputs["blessed"] == True, name="model-is-blessed"):  # noqa: E712
                exported = export_tflite(
                    model=model,
                    examples=examples,
                    quantizations=quantizations,
                    select=select,
                    min_agreement=min_agreement,
                    max_size_bytes=max_size_bytes,
                    max_latency_ms=max_latency_ms,
                )
                with dsl.If(exported.outputs["accepted"] == True, name="export-is-accepted"):  # noqa: E712
                    bundle = exported.outputs["bundle"]
                    served = validate_serving(
                        examples=examples,
                        model=model,
                        bundle=bundle,
                        destination=destination,
                        engine=target.serving_engine,
                        max_p99_ms=max_serving_ms,
                        max_memory_mb=max_serving_memory_mb,
                        max_running_changed_fraction=max_changed_decisions,
                    )
                    target.configure(served, secrets=["storage"], cache=False)  # it looks at the destination
                    with dsl.If(served.outputs["servable"] == True, name="model-is-servable"):  # noqa: E712
                        pushed = push_model(
                            model=model,
                            bundle=bundle,
                            blessed=evaluated.outputs["blessed"],
                            reason=evaluated.outputs["reason"],
                            destination=destination,
                            keep=keep,
                        )
                        target.configure(pushed, secrets=["storage"], cache=False)  # it changes the destination
                        with dsl.If(service != "", name="service-is-wanted"):
                            target.deploy(
                                model=pushed.outputs["pushed"], service=service, canary_percent=canary_percent
                            )
                    with dsl.Else(name="model-is-not-servable"):
                        reject(target, gate="validate_serving", reason=served.outputs["reason"], strict=strict)
                with dsl.Else(name="export-is-rejected"):
                    reject(target, gate="export_tflite", reason=exported.outputs["reason"], strict=strict)
            with dsl.Else(name="model-is-rejected"):
                reject(target, gate="evaluate_model", reason=evaluated.outputs["reason"], strict=strict)
        with dsl.Else(name="data-are-rejected"):
            reject(target, gate="validate_statistics", reason=validated.outputs["reason"], strict=strict)

    return pipeline


def reject(target: Target, *, gate: str, reason: dsl.PipelineTask, strict: bool) -> None:
    """End a branch: the gate's reason becomes visible, and with `strict` the run fails."""
    target.configure(report_rejection(gate=gate, reason=reason, strict=strict), cache=False)
