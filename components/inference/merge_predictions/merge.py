"""Merging: the shards that several jobs finished become the predictions of one."""

import collections
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfp_hybrid.components.inference.predict_batch.output import require_free, write_predictions
from kfp_hybrid.components.inference.predict_batch.table import made_by, write_table
from kfp_hybrid.data.examples import Examples, Split
from kfp_hybrid.data.prediction_table_writer import require_keys
from kfp_hybrid.publishing import publishing
from kfp_hybrid.step import StepError

SUMS = ("rows", "rows_without_score")
SUMS_BY_FEATURE = ("missing", "unknown")
METADATA = ("model_version", "predicted_at", "model_digest", "engine", "rows", "rows_without_score")


@dataclass(frozen=True)
class Merged:
    """What merging tells about itself.

    Attributes:
        rows: rows of all parts.
        metrics: the sums of the parts' counts.
        metadata: facts about the predictions, for their artifact.
    """

    rows: int
    metrics: dict[str, float]
    metadata: dict[str, str | int]


def merge(parts: Sequence[Path], output: Path, to_table: bool, table_duplicates: str) -> Merged:
    """Put the predictions of several jobs together.

    Args:
        parts: what each of them put out.
        output: directory that the predictions become; appears whole or not at all.
        to_table: whether to write a prediction table too.
        table_duplicates: what happens when a key comes twice in it.

    Raises:
        StepError: a part is damaged, is none of the same job, or comes twice; or a table is wanted of incomplete parts.
    """
    if not parts:
        raise StepError("there is nothing to merge; give part_0, part_1, ...")
    artifacts = [Examples.open(part) for part in parts]
    facts = _merge_facts([(part, made_by(part)) for part in parts])
    for artifact in artifacts:
        artifact.verify()
    if to_table:
        if "shards" in facts:
            raise StepError(f"a table needs all {facts['shard_count']} shards; these are {_numbers(facts['shards'])}")
        require_keys({name: artifacts[0].columns[name] for name in facts["key_columns"]})
    require_free(output)
    splits = {split: _merge_split(artifacts, split) for split in artifacts[0].splits}
    metadata = {name: facts[name] for name in METADATA}
    with publishing(output) as new:
        files = {
            file.path: a.path / file.path for a in artifacts for split in a.splits.values() for file in split.files
        }
        write_predictions(new, artifacts[0].columns, splits, files, artifacts[0].sources, facts)
        if to_table:
            metadata["keys"] = write_table(new, table_duplicates)
    counts = {f"{kind}_{name}": n for kind in SUMS_BY_FEATURE for name, n in facts[kind].items() if n}
    return Merged(facts["rows"], {**{name: facts[name] for name in SUMS}, **counts}, metadata)


def _merge_facts(parts: Sequence[tuple[Path, dict[str, Any]]]) -> dict[str, Any]:
    """What the manifest says about the job; without the numbers of the shards when they are all there."""
    for part, of_part in parts:
        if "shards" not in of_part:
            raise StepError(f"{part} is not a part of predictions: give what predict_batch with shard_count put out")
    facts = [of_part for _, of_part in parts]
    first = facts[0]
    for part, of_part in parts:
        if of_part["job"] != first["job"]:
            raise StepError(f"{part} is of another job than the first part; give parts of one job: the same examples, "
                            "model and parameters")  # fmt: skip
    shards = sorted(number for of_part in facts for number in of_part["shards"])
    if twice := [number for number, times in collections.Counter(shards).items() if times > 1]:
        raise StepError(f"shard {twice[0]} comes twice; give each part once")
    merged = {**first, "shards": shards, "predicted_at": min(of_part["predicted_at"] for of_part in facts)}
    for name in SUMS:
        merged[name] = sum(of_part[name] for of_part in facts)
    for name in SUMS_BY_FEATURE:
        sums = collections.Counter[str]()
        for of_part in facts:
            sums.update(of_part[name])
        merged[name] = dict(sums)
    differences = [of_part["largest_difference"] for of_part in facts]
    merged["largest_difference"] = None if None in differences else max(differences)
    if len(shards) == first["shard_count"]:
        del merged["job"], merged["shards"], merged["shard_count"]
    return merged


def _numbers(shards: Sequence[int]) -> str:
    return ", ".join(map(str, shards)) or "none"


def _merge_split(artifacts: Sequence[Examples], split: str) -> Split:
    files = [file for artifact in artifacts for file in artifact.splits[split].files]
    return Split(tuple(sorted(files, key=lambda file: file.path)))
