"""What statistics to compute."""

from dataclasses import dataclass

Slice = tuple[str, int | str]


@dataclass(frozen=True)
class StatisticsOptions:
    """What to compute.

    Attributes:
        string_columns: names of the columns of strings.
        text_columns: those of them that hold long and mostly distinct texts; of these, a string of more than 1024
            bytes is counted as TFDV's `__LARGE_BYTES__` among the most frequent values.
        weight_column: numeric column with the weight of each row; "" for unweighted statistics only.
        slices: the (column, value) pairs whose rows get statistics of their own.
        num_top_values: how many of the most frequent strings to list.
        num_rank_histogram_buckets: how many of the most frequent strings the rank histogram counts.
        num_histogram_buckets: buckets of equal width in the histogram of a numeric column.
        num_quantiles_histogram_buckets: buckets of equal count in the histogram of a numeric column.
    """

    string_columns: tuple[str, ...] = ()
    text_columns: tuple[str, ...] = ()
    weight_column: str = ""
    slices: tuple[Slice, ...] = ()
    num_top_values: int = 20
    num_rank_histogram_buckets: int = 1000
    num_histogram_buckets: int = 10
    num_quantiles_histogram_buckets: int = 10


def slice_name(key: Slice) -> str:
    """The name that TFDV gives to the slice of the rows with one value in a column."""
    column, value = key
    return f"{column}_{value}"
