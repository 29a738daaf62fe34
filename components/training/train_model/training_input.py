"""Reading examples for training: Parquet row groups, preprocessed as whole columns, shuffled, cut into batches.

The order of the rows of an epoch depends on (seed, epoch) only, so an interrupted training that goes on
with epoch 7 sees what the uninterrupted one saw. Rows that fit into memory are preprocessed once and
shuffled all together; otherwise each epoch shuffles the row groups, and the rows within a buffer of them.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kfp_hybrid.data.examples import Examples, RowGroup, reading
from kfp_hybrid.preprocessing import Preprocessing
from kfp_hybrid.step import StepError

LABEL = "label"
WEIGHT = "weight"
ROWS = "rows"
PREPROCESSED_ROWS = 16_384  # at once: more would leave the processor's cache, fewer would repeat the overhead

Arrays = dict[str, np.ndarray]  # the groups of Preprocessing.transform, the label, and the weight if there is one


def read_labels(examples: Examples, split: str, preprocessing: Preprocessing) -> np.ndarray:
    """Count the labels of a split by class; nothing but the label column is read.

    Args:
        examples: the examples.
        split: name of the split.
        preprocessing: gives the label and its classes.

    Returns:
        Classification: int64 [K], rows of each class. Regression: int64 [1], all rows.

    Raises:
        StepError: the split has no rows, or a label is missing or not one of the classes.
    """
    name = preprocessing.label.name
    if not examples.rows(split):
        raise StepError(f"split {split!r} has no rows; check the split parameters of ingest_examples")
    if name not in examples.columns:
        raise StepError(f"label {name!r} is not a column of the examples, which have {', '.join(examples.columns)}")
    counts = np.zeros(max(1, len(preprocessing.label.classes)), np.int64)
    for batch in examples.batches(split, [name]):
        try:
            labels = preprocessing.encode_labels(batch.column(0))
        except StepError as error:
            raise StepError(f"split {split!r}: {error}") from None
        counts += np.bincount(labels, minlength=len(counts)) if preprocessing.label.classes else len(labels)
    return counts


def preprocess(batch: pa.RecordBatch, preprocessing: Preprocessing) -> Arrays:
    """The preprocessed features and the encoded label of a record batch."""
    arrays = preprocessing.transform(batch)
    arrays[LABEL] = preprocessing.encode_labels(batch.column(preprocessing.label.name))
    return arrays


class TrainingInput:
    """The rows of a split as shuffled batches.

    Args:
        examples: the examples.
        split: name of the split; not empty.
        preprocessing: applied to the rows; the same numpy code that serving is checked against.
        batch_size: rows of a batch; the last of an epoch can be smaller.
        chunk_batches: most batches handed to TensorFlow at once; one by one, handing over would cost as much as a step.
        seed: decides, with the epoch, about the order of the rows.
        memory_bytes: what preprocessed rows may occupy. Rows that need more are read again in each epoch.
        class_weights: weight of a row by its encoded label; None for no weights.
        static_shapes: leave the last rows of an epoch out when they do not fill a batch, and hand batches over one by
            one, so that all tensors have the same shape (what a TPU needs).

    Attributes:
        rows: rows of the split.
        batch_size: rows of a batch, not more than there are rows.
        steps: batches of an epoch.
        error: why reading failed, when it did.
    """

    def __init__(
        self,
        examples: Examples,
        split: str,
        preprocessing: Preprocessing,
        batch_size: int,
        chunk_batches: int,
        seed: int,
        memory_bytes: int,
        class_weights: np.ndarray | None = None,
        static_shapes: bool = False,
    ):
        self._preprocessing = preprocessing
        self._class_weights = class_weights
        self._columns = [*preprocessing.features, preprocessing.label.name]
        self._seed = seed
        self._row_groups = examples.row_groups(split)
        self.rows = examples.rows(split)
        self.batch_size = min(batch_size, self.rows)
        self.steps = self.rows // self.batch_size if static_shapes else -(-self.rows // self.batch_size)
        self._static_shapes = static_shapes
        self._chunk_rows = self.batch_size * (1 if static_shapes else chunk_batches)
        # Half of the memory, because shuffling and concatenating hold a second copy for a moment.
        self._buffer_rows = memory_bytes // 2 // self._row_bytes()
        self._resident: Arrays | None = None
        self.error: StepError | None = None

    def dataset(self, epoch: Callable[[], int], replicas: range, all_replicas: int) -> Any:
        """The chunks of one epoch, split between replicas, as a `tf.data.Dataset`.

        Args:
            epoch: asked for the epoch (from 0) each time the data set is iterated over.
            replicas: the replicas that this process feeds.
            all_replicas: how many replicas share a batch.

        Returns:
            For each chunk one element per replica of this process: a mapping of the preprocessed groups, "label" and
            "weight" (with class weights), each [batches, rows of the replica, ...], and "rows" float32 [batches], the
            number of rows of the whole batch.
        """
        import tensorflow as tf

        def portions() -> Iterator[Arrays]:
            try:
                for arrays in self.chunks(epoch()):
                    batches, rows = arrays[LABEL].shape
                    for replica in replicas:
                        portion = {name: array[:, replica::all_replicas] for name, array in arrays.items()}
                        yield {**portion, ROWS: np.full(batches, rows, np.float32)}
            except StepError as error:
                self.error = error  # TensorFlow would bury it in an error of its own
                raise

        batches, rows = (1, self.batch_size // all_replicas) if self._static_shapes else (None, None)
        layout = self._layout()
        signature = {name: tf.TensorSpec([batches, rows, *shape], type_) for name, (shape, type_) in layout.items()}
        signature[ROWS] = tf.TensorSpec([batches], tf.float32)
        options = tf.data.Options()
        # Nothing is tuned here, but releasing an iterator would wait for its tuner to wake up: seconds in each epoch.
        options.autotune.enabled = False
        chunks = tf.data.Dataset.from_generator(portions, output_signature=signature)
        return chunks.prefetch(2 * len(replicas)).with_options(options)

    def chunks(self, epoch: int) -> Iterator[Arrays]:
        """The batches of an epoch, several at once.

        Args:
            epoch: number of the epoch, from 0.

        Yields:
            Arrays [batches, rows of a batch, ...]; all batches are full, except that the last chunk of an epoch can be
            one smaller batch.
        """
        random = np.random.default_rng([self._seed, epoch])
        rest: Arrays | None = None
        for arrays in self._buffers(random):
            if rest is not None:
                arrays = _concatenate([rest, arrays])
            order = random.permutation(len(arrays[LABEL]))
            full = len(order) - len(order) % self.batch_size
            for start in range(0, full, self._chunk_rows):
                chosen = order[start : min(full, start + self._chunk_rows)]
                yield {n: a.take(chosen, 0).reshape(-1, self.batch_size, *a.shape[1:]) for n, a in arrays.items()}
            rest = {name: array.take(order[full:], 0) for name, array in arrays.items()}
        if rest is not None and len(rest[LABEL]) and not self._static_shapes:
            yield {name: array[np.newaxis] for name, array in rest.items()}

    def _buffers(self, random: np.random.Generator) -> Iterator[Arrays]:
        """Preprocessed rows: all of them from memory, or one buffer of row groups after the other."""
        if self.rows <= self._buffer_rows:
            if self._resident is None:
                self._resident = self._load(self._row_groups)
            yield self._resident
            return
        shuffled = [self._row_groups[i] for i in random.permutation(len(self._row_groups))]
        with ThreadPoolExecutor(1) as reader:  # reads the next buffer while this one is trained on
            following = None
            for groups in _buffer_groups(shuffled, self._buffer_rows // 2):
                current, following = following, reader.submit(self._load, groups)
                if current is not None:
                    yield current.result()
            if following is not None:
                yield following.result()

    def _load(self, row_groups: list[RowGroup]) -> Arrays:
        return _concatenate([arrays for group in row_groups for arrays in self._read(group)])

    def _read(self, group: RowGroup) -> Iterator[Arrays]:
        with reading(group.file), pq.ParquetFile(group.file) as parquet:
            # One thread, because another one is training.
            table = parquet.read_row_group(group.index, columns=self._columns, use_threads=False)
        for batch in table.to_batches(max_chunksize=PREPROCESSED_ROWS):
            arrays = preprocess(batch, self._preprocessing)
            if self._class_weights is not None:
                arrays[WEIGHT] = self._class_weights[arrays[LABEL]]
            yield arrays

    def _layout(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape of one row and type, by array."""
        numbers, categories = len(self._preprocessing.numeric), len(self._preprocessing.categorical)
        layout: dict[str, tuple[tuple[int, ...], Any]] = {}
        if numbers:
            layout = {"numeric": ((numbers,), np.float32), "bucket": ((numbers,), np.int32)}
        if categories:
            layout["categorical"] = ((categories,), np.int32)
        layout[LABEL] = ((), np.int32 if self._preprocessing.label.classes else np.float32)
        if self._class_weights is not None:
            layout[WEIGHT] = ((), np.float32)
        return layout

    def _row_bytes(self) -> int:
        return sum(int(np.prod(shape)) * np.dtype(dtype).itemsize for shape, dtype in self._layout().values())


def _buffer_groups(row_groups: list[RowGroup], buffer_rows: int) -> Iterator[list[RowGroup]]:
    """Consecutive row groups of together at most `buffer_rows` rows, or one that is larger."""
    buffer: list[RowGroup] = []
    for group in row_groups:
        if buffer and sum(g.rows for g in buffer) + group.rows > buffer_rows:
            yield buffer
            buffer = []
        buffer.append(group)
    yield buffer


def _concatenate(parts: list[Arrays]) -> Arrays:
    return parts[0] if len(parts) == 1 else {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
