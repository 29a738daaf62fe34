"""Batch prediction: shards are predicted side by side, and published together when all are finished."""

import contextlib
import importlib.metadata
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kfp_hybrid import __version__
from kfp_hybrid.checkpoints import checkpoint_base, checkpoint_folder, fingerprint
from kfp_hybrid.components.inference.predict_batch.columns import Columns
from kfp_hybrid.components.inference.predict_batch.inputs import open_rows
from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.components.inference.predict_batch.output import require_free, write_predictions
from kfp_hybrid.components.inference.predict_batch.predictors import Predictor
from kfp_hybrid.components.inference.predict_batch.shards import (
    Finished,
    Shard,
    finish_shard,
    own_shards,
    plan_shards,
    totals,
)
from kfp_hybrid.components.inference.predict_batch.sources import Source, find_source, open_source
from kfp_hybrid.components.inference.predict_batch.table import write_table
from kfp_hybrid.cores import available_cores
from kfp_hybrid.data.examples import Examples, Split
from kfp_hybrid.publishing import publishing
from kfp_hybrid.step import StepError

SAMPLE_ROWS = 1024
SECONDS_BETWEEN_LOGS = 5.0
JOB = "job.json"
VERSIONS_OF = ("numpy", "pyarrow", "tensorflow", "ai-edge-litert")

Plan = dict[str, list[Shard]]


@dataclass(frozen=True)
class Work:
    """What is left when everything is open and checked: to finish shards.

    Attributes:
        shards: the shards.
        predictor: gives the scores.
        source: the files that it was opened from.
        columns: what is written.
        batch_size: rows per call of the model.
        workers: shards computed at the same time on this machine.
        folder: where finished shards are kept, also those of an earlier run.
    """

    shards: list[Shard]
    predictor: Predictor
    source: Source
    columns: Columns
    batch_size: int
    workers: int
    folder: Path


Finish = Callable[[Work], list[Finished]]
"""Finishes the shards of a job, in their order."""


@dataclass(frozen=True)
class Predicted:
    """What a job tells about itself.

    Attributes:
        rows: rows predicted.
        metrics: rows, unknown values, differences, seconds.
        metadata: facts about the predictions, for their artifact.
    """

    rows: int
    metrics: dict[str, float]
    metadata: dict[str, str | int]


def predict(
    examples: Path | None,
    model: Path | None,
    bundle: Path | None,
    output: Path,
    options: Options,
    finish: Finish | None = None,
) -> Predicted:
    """Predict for all rows of examples.

    Args:
        examples: examples artifact; None for the files that the options name.
        model: artifact of a SavedModel, or of push_model.
        bundle: artifact of an edge bundle; predicts if given.
        output: directory that the predictions become; appears whole or not at all.
        options: everything else.
        finish: finishes the shards, in their order; None for threads of this process.

    Raises:
        StepError: the input, the model or a parameter is wrong.
    """
    started = time.perf_counter()
    options.validate()
    require_free(output)
    base = checkpoint_base(options.checkpoint_dir, output)
    workers = options.workers or available_cores()
    with contextlib.ExitStack() as stack:
        data = open_rows(examples, options, base, stack)
        keys = options.key_types(data)
        whole = {split: plan_shards(data, split, options.shard_rows) for split in options.chosen_splits(data)}
        plan = own_shards(whole, options.shard_index, options.shard_count)
        threads = max(1, workers // max(1, sum(map(len, plan.values()))))  # with fewer shards than workers, more each
        source = find_source(model, bundle, stack)
        opened = open_source(source, data.columns, _sample(data, whole), options.task, options.classes, threads)
        job = fingerprint(_description(data, whole, source, opened.predictor, options))
        name = fingerprint({"job": job, "time": options.time, "shard": options.shard_index})
        folder = stack.enter_context(checkpoint_folder(base, name))
        new = stack.enter_context(publishing(output))
        constants = {"model_version": source.files.version, "predicted_at": _time(folder, options)}
        columns = Columns(keys, opened.answer, opened.outputs, options.prefix, options.decision_threshold, constants)
        begun = time.perf_counter()
        own = [shard for of_split in plan.values() for shard in of_split]
        work = Work(own, opened.predictor, source, columns, options.batch_size, workers, folder)
        shards = (finish or finish_side_by_side)(work)
        seconds = time.perf_counter() - begun
        tally, without_score = totals(shards)
        rows = sum(shard.file.rows for shard in shards)
        if rows and without_score == rows:
            raise StepError(f"the model gives no finite score for any of the {rows} rows; it is broken: train it again")
        facts = _facts(source, opened.difference, rows, without_score, constants)
        further = {"missing": dict(tally.missing), "unknown": dict(tally.unknown), **columns.facts}
        if options.shard_count > 1:
            further |= {"job": job, "shards": [options.shard_index], "shard_count": options.shard_count}
        files = {shard.file.path: shard.file for shard in shards}
        splits = {split: Split(tuple(files[shard.path] for shard in planned)) for split, planned in plan.items()}
        finished = {path: folder / path for path in files}
        write_predictions(new, columns.types, splits, finished, data.sources, {**facts, **further})
        if options.to_table:
            facts["keys"] = write_table(new, options.table_duplicates)
    with contextlib.suppress(OSError):
        base.rmdir()  # if nobody else has checkpoints there
    metrics = _metrics(shards, opened.difference)
    metrics |= {
        "seconds": time.perf_counter() - started,
        "rows_per_second": (rows - metrics["rows_of_earlier_run"]) / seconds,
    }
    _log(metrics)
    return Predicted(rows, metrics, {key: value for key, value in facts.items() if isinstance(value, str | int)})


def _sample(data: Examples, plan: Plan) -> pa.RecordBatch | None:
    """A few rows of the first split that has any."""
    split = next((split for split, shards in plan.items() if shards), None)
    return next(data.batches(split, batch_size=SAMPLE_ROWS)) if split else None


def _description(data: Examples, plan: Plan, source: Source, predictor: Predictor, options: Options) -> dict[str, Any]:
    """All that the bytes of the shards depend on, but the time."""
    return {
        "columns": data.schema_fingerprint,
        "files": {split: [file.sha256 for file in data.split(split).files] for split in plan},
        "model": [source.files.digest, source.files.version, type(predictor).__name__],
        "options": options.result,
        "versions": [__version__, *map(importlib.metadata.version, VERSIONS_OF)],
    }


def _time(folder: Path, options: Options) -> str:
    """The time to write into each row: that of the run which began the job."""
    file = folder / JOB
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads(file.read_text(encoding="utf-8"))["time"])
    timestamp = options.timestamp()
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"time": timestamp}), encoding="utf-8")
    unfinished.replace(file)
    return timestamp


def finish_side_by_side(work: Work) -> list[Finished]:
    """Finish all shards, some at the same time; logs progress."""
    total, done, last_log = sum(shard.rows for shard in work.shards), 0, time.monotonic()
    executor = ThreadPoolExecutor(work.workers)
    try:
        arguments = work.predictor, work.columns, work.batch_size, work.folder
        futures = [executor.submit(finish_shard, shard, *arguments) for shard in work.shards]
        for future in as_completed(futures):
            done += future.result().file.rows
            if time.monotonic() - last_log > SECONDS_BETWEEN_LOGS:
                logging.info("predicted %s of %s rows", f"{done:,}", f"{total:,}")
                last_log = time.monotonic()
        return [future.result() for future in futures]
    finally:
        executor.shutdown(cancel_futures=True)  # after an error or a signal, only what has begun is finished


def _facts(
    source: Source, difference: float | None, rows: int, without_score: int, constants: dict[str, str]
) -> dict[str, Any]:
    return {
        **constants,
        "model_digest": source.files.digest,
        "engine": "litert" if source.bundle else "tensorflow",
        "rows": rows,
        "rows_without_score": without_score,
        "largest_difference": difference,
    }


def _metrics(shards: list[Finished], difference: float | None) -> dict[str, float]:
    tally, without_score = totals(shards)
    metrics: dict[str, float] = {
        "rows": sum(shard.file.rows for shard in shards),
        "rows_of_earlier_run": sum(shard.file.rows for shard in shards if shard.earlier),
        "rows_without_score": without_score,
    }
    metrics |= {f"missing_{name}": count for name, count in tally.missing.items() if count}
    metrics |= {f"unknown_{name}": count for name, count in tally.unknown.items() if count}
    return metrics if difference is None else {**metrics, "largest_difference": difference}


def _log(metrics: dict[str, float]) -> None:
    logging.info(
        "predicted %s rows (%s by an earlier run) in %.1f s, %s rows/s while predicting",
        f"{metrics['rows']:,}",
        f"{metrics['rows_of_earlier_run']:,}",
        metrics["seconds"],
        f"{metrics['rows_per_second']:,.0f}",
    )
    if without := metrics["rows_without_score"]:
        logging.warning("%s rows have no score, because the model gave NaN or infinity", f"{without:,}")
