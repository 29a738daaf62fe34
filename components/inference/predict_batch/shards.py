"""Shards: the parts of the output, each made by itself from some row groups of the examples, and each made once.

A finished shard is a Parquet file and, written after it, a JSON file that says what is in it. Only a shard whose two
files agree is taken over by a later run.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kfp_hybrid.components.inference.predict_batch.columns import Columns, without_score
from kfp_hybrid.components.inference.predict_batch.predictors import Predictor, Tally
from kfp_hybrid.data.examples import ROW_GROUP_ROWS, Examples, File, RowGroup, arrow_schema, reading, sha256
from kfp_hybrid.step import StepError

# Without Arrow's schema in the file, readers do not see dictionaries; the image validation has pyarrow 10.
HIDES_DICTIONARIES = int(pa.__version__.partition(".")[0]) >= 11


@dataclass(frozen=True)
class Shard:
    """A part of the output.

    Attributes:
        path: of the Parquet file, relative to the output.
        row_groups: what to predict for, all of one file.
    """

    path: str
    row_groups: tuple[RowGroup, ...]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(group.rows for group in self.row_groups)


@dataclass(frozen=True)
class Finished:
    """A shard that is finished.

    Attributes:
        file: the Parquet file.
        tally: values that the model does not know.
        without_score: rows for which the model gave a score that is not finite.
        earlier: whether an earlier run made it.
    """

    file: File
    tally: Tally
    without_score: int
    earlier: bool = False


def plan_shards(examples: Examples, split: str, shard_rows: int) -> list[Shard]:
    """Cut a split into shards; the same examples are always cut alike.

    Args:
        examples: the examples.
        split: name of the split.
        shard_rows: rows of a shard, rounded up to whole row groups.

    Raises:
        StepError: a file is missing or damaged.
    """
    parts: list[list[RowGroup]] = []
    for group in examples.row_groups(split):
        if not parts or parts[-1][0].file != group.file or sum(g.rows for g in parts[-1]) >= shard_rows:
            parts.append([])
        parts[-1].append(group)
    shards = [Shard(f"{split}/part-{i:05d}.parquet", tuple(groups)) for i, groups in enumerate(parts)]
    if (found := sum(shard.rows for shard in shards)) != examples.rows(split):
        raise StepError(
            f"split {split!r} of {examples.path} has {found} rows, but its manifest says {examples.rows(split)}; "
            "run ingest_examples again"
        )
    return shards


def own_shards(plan: Mapping[str, list[Shard]], index: int, count: int) -> dict[str, list[Shard]]:
    """Every `count`-th shard of a plan, beginning with number `index`: what one of several jobs does."""
    numbers = itertools.count()
    return {split: [shard for shard in shards if next(numbers) % count == index] for split, shards in plan.items()}


def finish_shard(shard: Shard, predictor: Predictor, columns: Columns, batch_size: int, folder: Path) -> Finished:
    """Predict for the rows of a shard, unless that is done already.

    Args:
        shard: what to predict for.
        predictor: gives the scores.
        columns: what is written.
        batch_size: rows per call of the model.
        folder: where shards are kept.

    Raises:
        StepError: the examples are damaged, the model does not take a value, or the disk is full.
    """
    file = folder / shard.path
    if (finished := earlier(shard, folder)) is not None:
        return finished
    tally, failed = Tally(), 0
    unfinished = file.with_suffix(".unfinished")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        schema = columns.schema if HIDES_DICTIONARIES else arrow_schema(columns.types)
        with pq.ParquetWriter(unfinished, schema, **_encoding(columns)) as writer:
            for group in shard.row_groups:
                table = _predict(group, predictor, columns, batch_size, tally)
                failed += without_score(table, columns)
                writer.write_table(table.cast(schema), row_group_size=ROW_GROUP_ROWS)
        entry = File(shard.path, shard.rows, unfinished.stat().st_size, sha256(unfinished))
        unfinished.replace(file)
        _note(file, Finished(entry, tally, failed))
    except OSError as error:
        raise StepError(f"cannot write {file}: {error.strerror or error}; check its permissions and space") from error
    return Finished(entry, tally, failed)


def _predict(group: RowGroup, predictor: Predictor, columns: Columns, batch_size: int, tally: Tally) -> pa.Table:
    names = sorted({*predictor.columns, *columns.keys})
    with reading(group.file):
        texts = [field.name for field in pq.read_schema(group.file) if field.type == pa.string()]
    dictionaries = [name for name in texts if name in predictor.texts and name not in columns.keys]
    keys, scores = [], []
    with reading(group.file), pq.ParquetFile(group.file, read_dictionary=dictionaries) as parquet:
        # One thread, because each shard has one.
        batches = parquet.iter_batches(batch_size, row_groups=[group.index], columns=names, use_threads=False)
        for batch in batches:
            scores.append(predictor.scores(batch, tally))
            keys.append(pa.Table.from_batches([batch]).select(list(columns.keys)))
    return columns.table(pa.concat_tables(keys), np.concatenate(scores))


def _encoding(columns: Columns) -> dict[str, object]:
    """How Parquet stores the columns: numbers as they are, because hardly any comes twice; texts by dictionary."""
    texts = [name for name, type_ in columns.types.items() if type_ == "string"]
    return {"use_dictionary": texts, **({"store_schema": False} if HIDES_DICTIONARIES else {})}


def notes_of(file: Path) -> Path:
    """The JSON file beside a shard's Parquet file."""
    return file.with_suffix(".json")


def _note(file: Path, finished: Finished) -> None:
    notes = notes_of(file)
    unfinished = notes.with_suffix(".unfinished-json")
    content = {
        "file": dataclasses.asdict(finished.file),
        "missing": finished.tally.missing,
        "unknown": finished.tally.unknown,
        "without_score": finished.without_score,
    }
    unfinished.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    unfinished.replace(notes)


def earlier(shard: Shard, folder: Path) -> Finished | None:
    """The shard as an earlier run made it; None when it did not, or what it left is damaged."""
    file = folder / shard.path
    try:
        content = json.loads(notes_of(file).read_text(encoding="utf-8"))
        entry = File(**content["file"])
        tally = Tally()
        tally.missing.update(content["missing"])
        tally.unknown.update(content["unknown"])
        intact = (entry.path, entry.rows, entry.sha256) == (shard.path, shard.rows, sha256(file))
        return Finished(entry, tally, content["without_score"], earlier=True) if intact else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def totals(shards: Sequence[Finished]) -> tuple[Tally, int]:
    """The tally and the rows without a score of all shards."""
    tally = Tally()
    for shard in shards:
        tally.add(shard.tally)
    return tally, sum(shard.without_score for shard in shards)
