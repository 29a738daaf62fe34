"""What runs on a worker of Beam: RunInference with an edge bundle, without TensorFlow."""

import functools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apache_beam.ml.inference.base import ModelHandler

from kfp_hybrid import storage
from kfp_hybrid.components.inference.predict_batch.columns import Columns
from kfp_hybrid.components.inference.predict_batch.predictors import PreprocessedPredictor, open_bundle
from kfp_hybrid.components.inference.predict_batch.shards import Shard, finish_shard, notes_of


@dataclass(frozen=True)
class Places:
    """Where workers find what they need, each a folder that all of them see, or a URI.

    Attributes:
        examples: the files of the examples, by the names that shards have for them; "" when shards name them in full.
        bundle: the edge bundle.
        shards: where finished shards go.
    """

    examples: str
    bundle: str
    shards: str


class EdgeBundleHandler(ModelHandler[Shard, int, PreprocessedPredictor]):  # type: ignore[misc]
    """Runs an edge bundle on LiteRT; an example is a shard, which the worker reads, predicts and writes.

    So no row goes through Beam: it hands out shards, and does again what a lost worker had not finished. A shard is
    finished the same way as without Beam, with the same bytes.

    Args:
        places: where things are.
        columns: what is written.
        batch_size: rows per call of the model.
    """

    def __init__(self, places: Places, columns: Columns, batch_size: int):
        super().__init__()
        self._places = places
        self._columns = columns
        self._batch_size = batch_size

    def load_model(self) -> PreprocessedPredictor:
        """Open the bundle, once in each process."""
        predictor, _ = open_bundle(local(self._places.bundle), threads=1)
        return predictor

    def run_inference(
        self, batch: Sequence[Shard], model: PreprocessedPredictor, inference_args: dict[str, Any] | None = None
    ) -> Iterator[int]:
        """Finish shards; gives the rows of each."""
        for shard in batch:
            yield self._finish(shard, model)

    def batch_elements_kwargs(self) -> dict[str, int]:
        """One shard at a time: it is a batch of rows itself."""
        return {"min_batch_size": 1, "max_batch_size": 1}

    def get_metrics_namespace(self) -> str:
        """The name under which Beam counts calls and their time."""
        return "predict_batch"

    def _finish(self, shard: Shard, model: PreprocessedPredictor) -> int:
        place = self._places.examples
        groups = tuple(replace(g, file=local(f"{place}/{g.file}") if place else g.file) for g in shard.row_groups)
        here = replace(shard, row_groups=groups)
        if not storage.is_uri(self._places.shards):
            return finish_shard(here, model, self._columns, self._batch_size, Path(self._places.shards)).file.rows
        with tempfile.TemporaryDirectory(prefix="shard-") as folder:
            finished = finish_shard(here, model, self._columns, self._batch_size, Path(folder))
            file = Path(folder) / shard.path
            for path in (file, notes_of(file)):  # the notes last: they make the shard count
                storage.upload(path, f"{self._places.shards}/{path.relative_to(folder).as_posix()}")
        return finished.file.rows


@functools.lru_cache(maxsize=8)
def local(place: str) -> Path:
    """A folder or file on this machine; what a URI names is fetched, once in each process."""
    if not storage.is_uri(place):
        return Path(place)
    folder = Path(tempfile.mkdtemp(prefix="fetched-"))
    storage.download(place, folder)
    name = folder / place.rpartition("/")[2]
    return name if name.is_file() else folder
