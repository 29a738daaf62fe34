"""The command `predict`: batch prediction on this machine, without a pipeline."""

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from kfp_hybrid.cli.options import FOLDER

EXAMPLES_MANIFEST = "manifest.json"
INGEST = """
import sys
from kfp_hybrid.components.data_processing.ingest_examples.ingest import Request, ingest_examples
from kfp_hybrid.step import step
with step():
    ingest_examples(sys.argv[1], Request(sys.argv[2], split_ratios={"rows": 1.0}, max_bad_fraction=float(sys.argv[3])))
"""
PREDICT = "kfp_hybrid.components.inference.predict_batch"


@click.command()
@click.argument("model", type=FOLDER)
@click.argument("source")
@click.option("-o", "--output", type=FOLDER, required=True, help="The folder of predictions that appears.")
@click.option("--key", "keys", multiple=True, metavar="COLUMN", help="Written beside the predictions; may be repeated.")
@click.option("--split", "splits", multiple=True, metavar="NAME", help="A split of examples; all when left out.")
@click.option("--task", default="auto", show_default=True, help="For a model that does not say what it predicts.")
@click.option("--time", default="", help="Written into each row, ISO 8601; else the start of the job.")
@click.option("--workers", default=0, help="Shards computed at the same time; 0 for one per core.")
@click.option(
    "--max-bad-fraction", default=0.0, show_default=True, help="The share of rows of files that may be unreadable."
)
def predict(
    model: Path,
    source: str,
    output: Path,
    keys: tuple[str, ...],
    splits: tuple[str, ...],
    task: str,
    time: str,
    workers: int,
    max_bad_fraction: float,
) -> None:
    """Predict for every row of SOURCE with MODEL, into Parquet files.

    MODEL is a SavedModel, an edge bundle, or a directory that models are published in. SOURCE is an examples artifact,
    or CSV, Parquet or TFRecord files: a file, a directory or a pattern.
    """
    options = {"key_columns": keys, "splits": splits, "task": task, "time": time, "workers": workers}
    with contextlib.ExitStack() as stack:
        examples = Path(source)
        if not (examples / EXAMPLES_MANIFEST).is_file():
            examples = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kfp-hybrid-"))) / "examples"
            _python("validation", "-c", INGEST, str(examples), source, str(max_bad_fraction))
        _python("tensorflow", "-m", PREDICT, str(model), str(examples), str(output), json.dumps(options))


def _python(image: str, *arguments: str) -> None:
    """Run the Python of an image; ends this process with its exit status when it fails."""
    command = [sys.executable, "-m", "kfp_hybrid.cli", "python", image, *arguments]
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(status)


COMMANDS = (predict,)
