"""Streams Parquet files as typed Arrow record batches; all files have the same columns in the same order.

Types are those of the files (see `kfp_hybrid.data.arrow_columns`); where files differ, the wider type holds for
all. The line of a row is its number in the file, counted from 1.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from kfp_hybrid.data.arrow_columns import column_type, to_chunk
from kfp_hybrid.data.reading import Chunk, require_same_columns, widen
from kfp_hybrid.data.sources import Source
from kfp_hybrid.step import StepError

BATCH_ROWS = 65_536


class ParquetReader:
    """A `Reader` of Parquet files.

    Args:
        sources: the files.
        batch_rows: largest number of rows of a chunk.

    Raises:
        StepError: a file cannot be read, has other columns than the first one, or a column of an unusable type.
    """

    def __init__(self, sources: Sequence[Source], batch_rows: int = BATCH_ROWS):
        self._sources = sources
        self._batch_rows = batch_rows
        self._columns: dict[str, str] = {}
        headers = {}
        for source in sources:
            types = _column_types(source)
            headers[source.name] = list(types)
            self._columns = widen(self._columns, types)
        require_same_columns(headers)

    def guess(self) -> dict[str, str]:
        """Column name -> type; Parquet files know it."""
        return dict(self._columns)

    def chunks(self, columns: Mapping[str, str], keys: Collection[str] = ()) -> Iterator[Chunk]:
        """Stream the rows; see `Reader.chunks`."""
        for source in self._sources:
            first = 1
            with _open(source) as file:
                for batch in file.iter_batches(self._batch_rows):
                    numbers = range(first, first + batch.num_rows)
                    chunk, _ = to_chunk(source.name, numbers, batch, columns, keys)
                    assert chunk is not None  # the files told their types
                    yield chunk
                    first += batch.num_rows


@contextlib.contextmanager
def _open(source: Source) -> Iterator[pq.ParquetFile]:
    if source.member:
        raise StepError(f"{source.name}: Parquet files in a .zip file cannot be read; unpack it")
    try:
        # Without pre-buffering a huge row group is read column by column and page by page.
        with contextlib.ExitStack() as stack:
            place = source.random_access(stack)
            yield stack.enter_context(pq.ParquetFile(place, pre_buffer=False, buffer_size=1 << 20))
    except (OSError, pa.ArrowException) as error:
        raise StepError(f"cannot read {source.name} as Parquet: {error}; check that it is whole") from error


def _column_types(source: Source) -> dict[str, str]:
    with _open(source) as file:
        schema = file.schema_arrow
    types = {}
    for field in schema:
        if field.name in types:
            raise StepError(f"{source.name} has two columns {field.name!r}; rename one of them")
        type_ = column_type(field.type)
        if type_ is None:
            raise StepError(
                f"column {field.name} of {source.name} has the type {field.type}, which cannot be used; "
                "convert it to numbers or text, or leave it out"
            )
        types[field.name] = type_
    if not types:
        raise StepError(f"{source.name} has no columns")
    return types
