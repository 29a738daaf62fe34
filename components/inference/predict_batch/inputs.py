"""The rows to predict for: an examples artifact, or files in CSV, Parquet or TFRecord."""

import contextlib
from pathlib import Path

from kfp_hybrid.checkpoints import checkpoint_folder, fingerprint
from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.data.examples import Examples
from kfp_hybrid.step import StepError

SPLIT = "rows"


def open_rows(examples: Path | None, options: Options, base: Path, stack: contextlib.ExitStack) -> Examples:
    """Open an examples artifact, or make one of files for the time of the job.

    The files are read as ingest_examples reads them. The same files always give the same bytes, so a job that was
    killed finds its shards again; the examples themselves are made again.

    Args:
        examples: an examples artifact; None for the files of `options.source`.
        options: where the files are, their format and how many bad rows they may have.
        base: where to keep the examples that were made.
        stack: keeps them until the end of the job.

    Raises:
        StepError: there is nothing to read, or both, or it cannot be read.
    """
    if (examples is None) == (not options.source):
        raise StepError("give either examples or source, the files to predict for")
    if examples is not None:
        return Examples.open(examples)
    from kfp_hybrid.components.data_processing.ingest_examples.ingest import Request, ingest_examples

    folder = stack.enter_context(checkpoint_folder(base, fingerprint({"source": options.source})))
    path = str(folder / "examples")
    ratios = {SPLIT: 1.0}
    ingest_examples(path, Request(options.source, options.format, ratios, max_bad_fraction=options.max_bad_fraction))
    return Examples.open(path)
