"""Runs TFDV's own Beam transform, for data beyond one machine."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import tensorflow_data_validation as tfdv
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineRunner, create_runner
from tensorflow_metadata.proto.v0 import statistics_pb2

from kfp_hybrid.components.data_validation.generate_statistics.options import StatisticsOptions, slice_name
from kfp_hybrid.components.data_validation.generate_statistics.statistics import make_generators, to_features
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.step import StepError

ALL_ROWS = "All Examples"  # TFDV's name for the data set that its slices are slices of


def statistics_of(
    examples: Examples, options: StatisticsOptions, beam_options: Mapping[str, Any], directory: Path
) -> list[statistics_pb2.DatasetFeatureStatistics]:
    """The statistics of every split and its slices, computed by one Beam pipeline.

    Args:
        examples: the runner's workers must be able to read its files under the same paths.
        options: what to compute.
        beam_options: Beam pipeline options by name, such as {"runner": "FlinkRunner", "parallelism": 8}.
        directory: a place for intermediate files, which the workers must be able to write.

    Returns:
        One entry per split, each followed by those of its slices.

    Raises:
        StepError: the options are not Beam's, or the pipeline failed.
    """
    pipeline_options, runner = _parse(beam_options)
    logging.info("computing the statistics with Beam's %s", type(runner).__name__)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".beam-") as scratch:
        results = {split: Path(scratch, split) for split in examples.splits if examples.rows(split)}
        with _failure_is_a_step_error(runner), beam.Pipeline(runner, pipeline_options) as pipeline:
            for split, result in results.items():
                _add_split(pipeline, split, [str(file) for file in examples.files(split)], options, result)
        empty = statistics_pb2.DatasetFeatureStatistics
        return [
            dataset
            for split in examples.splits
            for dataset in (_read(split, results[split], options) if split in results else [empty(name=split)])
        ]


@contextlib.contextmanager
def _failure_is_a_step_error(runner: PipelineRunner) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever failed on a worker arrives here as a RuntimeError or as itself
        logging.exception("the Beam pipeline failed")
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise StepError(f"Beam's {type(runner).__name__} failed: {reason}; the log above says where") from error


def _add_split(pipeline: beam.Pipeline, split: str, files: list[str], options: StatisticsOptions, result: Path) -> None:
    slicers = [
        tfdv.experimental_get_feature_value_slicer({column: None})
        for column in dict.fromkeys(column for column, _ in options.slices)
    ]
    stats_options = tfdv.StatsOptions(
        generators=list(make_generators(options)),
        add_default_generators=False,
        experimental_slice_functions=slicers or None,
    )
    _ = (
        pipeline
        | f"Files of {split}" >> beam.Create(files)
        | f"Read {split}" >> beam.io.ReadAllFromParquetBatched()
        | f"Features of {split}" >> beam.FlatMap(_features)
        | f"Statistics of {split}" >> tfdv.GenerateStatistics(stats_options)
        | f"Write {split}" >> tfdv.WriteStatisticsToBinaryFile(str(result))
    )


def _features(table: pa.Table) -> Iterator[pa.RecordBatch]:
    return map(to_features, table.to_batches())


def _read(split: str, file: Path, options: StatisticsOptions) -> list[statistics_pb2.DatasetFeatureStatistics]:
    datasets = {dataset.name: dataset for dataset in tfdv.load_stats_binary(str(file)).datasets}
    names = {(ALL_ROWS if options.slices else ""): split}
    names |= {slice_name(key): f"{split}/{slice_name(key)}" for key in options.slices}
    for name, dataset in datasets.items():
        dataset.name = names[name]
    return [datasets[name] for name in names if name in datasets]


def _parse(beam_options: Mapping[str, Any]) -> tuple[PipelineOptions, PipelineRunner]:
    # kfp hands numbers within a parameter over as floats, and Beam's parser wants its integers without a point.
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in beam_options.items()}
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            options = PipelineOptions.from_dictionary(whole)
            options.get_all_options()  # parses each of them; on a mistake argparse writes to stderr and exits
            runner = create_runner(options.view_as(StandardOptions).runner or "DirectRunner")
    except (SystemExit, ValueError, ImportError) as error:
        reason = (complaint.getvalue() if isinstance(error, SystemExit) else str(error)).strip().splitlines()[-1]
        raise StepError(f"beam_options are not pipeline options of Apache Beam: {reason}") from error
    return options, runner
