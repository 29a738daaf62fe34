"""The interface of export_csv."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.VALIDATION, install_kfp_package=False)
def export_csv(
    examples: dsl.Input[dsl.Dataset],
    table: dsl.Output[dsl.Dataset],
    columns: list[str] = [],  # noqa: B006 - kfp copies it into the package
    splits: list[str] = [],  # noqa: B006
    split_column: str = "",
    split_values: dict = {},  # noqa: B006
    rows_per_file: int = 1_000_000,
) -> NamedTuple("Outputs", [("uris", list), ("source", str), ("rows", int)]):  # type: ignore[valid-type]
    """Write examples as CSV files, for services that do not read Parquet.

    Every file begins with the names of the columns. A missing value is an empty field.

    Args:
        examples: The examples (from ingest_examples).
        columns: The columns to write, in this order; empty for all.
        splits: The splits to write; empty for those of split_values, and without these for all.
        split_column: The name of a column to add that says to which set a row belongs.
        split_values: For each split, the values of that column, dealt to its rows in turn, such as
            {"train": ["TRAIN"], "eval": ["VALIDATE", "TEST"]}; empty for the name of the split.
        rows_per_file: The most rows of a file.

    Returns:
        table: The folder of the files.
        uris: The address of each file.
        source: The same as a JSON text, which Google Cloud pipeline components take for a list.
        rows: How many rows were written.
    """
    from kfp_hybrid.components.data_processing.export_csv.export import Options, write_csv
    from kfp_hybrid.step import step

    with step():
        options = Options(columns, splits, split_column, split_values, rows_per_file)
        return write_csv(examples.path, table.path, table.uri, options)
