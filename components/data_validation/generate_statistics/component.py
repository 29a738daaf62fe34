"""The interface of generate_statistics."""

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.VALIDATION, install_kfp_package=False)
def generate_statistics(
    examples: dsl.Input[dsl.Dataset],
    statistics: dsl.Output[dsl.Artifact],
    slice_columns: list[str] = [],  # noqa: B006
    max_slices: int = 50,
    weight_column: str = "",
    num_top_values: int = 20,
    num_rank_histogram_buckets: int = 1000,
    num_histogram_buckets: int = 10,
    num_quantiles_histogram_buckets: int = 10,
    processes: int = 0,
    beam_options: dict = {},  # noqa: B006
) -> None:
    """Compute the TFDV statistics of every split of the examples, and of slices of them.

    Args:
        examples: Examples to describe (from ingest_examples).
        slice_columns: Columns of strings or integers; each of their values gets statistics of its own. Rows without a
            value are in no slice.
        max_slices: The most values that a slice column may have; more fail the step before anything is computed.
        weight_column: Numeric column with the weight of each row, for weighted statistics beside the plain ones. Every
            row needs one.
        num_top_values: How many of the most frequent strings of a column to list.
        num_rank_histogram_buckets: How many of the most frequent strings of a column the rank histogram counts.
        num_histogram_buckets: Buckets of equal width in the histogram of a numeric column.
        num_quantiles_histogram_buckets: Buckets of equal count in the histogram of a numeric column.
        processes: How many processes share the work. 0 uses one per CPU that the step may use. The result does not
            depend on it.
        beam_options: Apache Beam pipeline options, as {"runner": "FlinkRunner", "flink_master": "host:8081"}, for data
            beyond one machine: TFDV's Beam transform then does the work on that runner. Empty uses this machine.

    Returns:
        statistics: A directory with stats.pb, a DatasetFeatureStatisticsList as every TFDV tool reads it: one entry per
            split, named like it, and one per slice, named <split>/<column>_<value>. Metadata: rows_<split>, features,
            slices, seconds.
    """
    from kfp_hybrid.components.data_validation.generate_statistics.generate import Request, generate_statistics
    from kfp_hybrid.step import step

    with step():
        request = Request(
            slice_columns=slice_columns,
            max_slices=max_slices,
            weight_column=weight_column,
            num_top_values=num_top_values,
            num_rank_histogram_buckets=num_rank_histogram_buckets,
            num_histogram_buckets=num_histogram_buckets,
            num_quantiles_histogram_buckets=num_quantiles_histogram_buckets,
            processes=processes,
            beam_options=beam_options,
        )
        statistics.metadata.update(generate_statistics(examples.path, statistics.path, request))
