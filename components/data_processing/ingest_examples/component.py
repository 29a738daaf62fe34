"""The interface of ingest_examples."""

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.VALIDATION, install_kfp_package=False)
def ingest_examples(
    source: str,
    examples: dsl.Output[dsl.Dataset],
    format: str = "auto",
    split_ratios: dict = {"train": 0.8, "eval": 0.2},  # noqa: B006
    key_columns: list[str] = [],  # noqa: B006
    split_column: str = "",
    split_values: dict = {},  # noqa: B006
    span_column: str = "",
    spans: list = [],  # noqa: B006
    max_bad_fraction: float = 0.01,
) -> None:
    """Read CSV, Parquet or TFRecord files, split their rows, and write them as examples.

    Args:
        source: A file, a directory, or a pattern such as /data/2013-*.csv, also in an object store: s3://, minio:// or
            gs://bucket/2013-*.csv; or package://kfp_hybrid/<path> for a data file of this package. CSV files may be
            compressed (.gz, .zip), TFRecord files too (.gz).
        format: csv, parquet or tfrecord; auto goes by the names of the files.
        split_ratios: The share of each split; together 1. Not used with split_column.
        key_columns: The columns whose hash decides the split of a row, so that rows with equal keys stay together.
            Empty takes the whole row.
        split_column: Split by the values of this column instead, such as a month.
        split_values: With split_column, the values of each split, such as {"train": [1, 2, 3], "eval": [4]}. Rows
            with other values are excluded, and counted.
        span_column: Keep only some spans of the data: the column that says to which span a row belongs.
        spans: With span_column, the spans to keep. Rows of other spans are excluded, and counted.
        max_bad_fraction: The share of rows that may be unreadable; more fail the step.

    Returns:
        examples: The rows as Parquet files, one folder per split, with a manifest; rows that cannot be read in the
            folder quarantine with file, line and reason. Metadata: rows, rows_<split>, quarantined_rows,
            excluded_rows, schema_fingerprint.
    """
    from kfp_hybrid.components.data_processing.ingest_examples.ingest import Request
    from kfp_hybrid.components.data_processing.ingest_examples.ingest import ingest_examples as ingest
    from kfp_hybrid.step import step

    with step():
        request = Request(
            source=source,
            format=format,
            split_ratios=split_ratios,
            key_columns=key_columns,
            split_column=split_column,
            split_values=split_values,
            span_column=span_column,
            spans=spans,
            max_bad_fraction=max_bad_fraction,
        )
        examples.metadata.update(ingest(examples.path, request))
