"""The command `predict`: batch prediction on this machine, without a pipeline."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from kfp_hybrid.cli.options import FOLDER
from kfp_hybrid.errors import UserError

EXAMPLES_MANIFEST = "manifest.json"
PREDICT = "kfp_hybrid.components.inference.predict_batch"
PREDICT_BEAM = "kfp_hybrid.components.inference.predict_batch_beam"


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
    "--format", "format_", default="auto", show_default=True, help="Of files: auto, csv, parquet or tfrecord."
)
@click.option(
    "--max-bad-fraction", default=0.0, show_default=True, help="The share of rows of files that may be unreadable."
)
@click.option(
    "--to-table", is_flag=True, help="Also write OUTPUT/table, from which the model server answers by the keys."
)
@click.option(
    "--table-duplicates",
    type=click.Choice(["error", "last"]),
    default="error",
    show_default=True,
    help="What happens when a key comes twice in the table.",
)
@click.option("--runner", default="", metavar="NAME", help="Predict by Apache Beam with a runner: DirectRunner, ...")
@click.option("--runner-option", "runner_options", multiple=True, metavar="--NAME=VALUE", help="May be repeated.")
@click.option("--exchange", default="", metavar="URI", help="Where the runner's workers get and leave files.")
def predict(
    model: Path,
    source: str,
    output: Path,
    keys: tuple[str, ...],
    format_: str,
    runner: str,
    runner_options: tuple[str, ...],
    exchange: str,
    **options: Any,
) -> None:
    """Predict for every row of SOURCE with MODEL, into Parquet files.

    MODEL is a SavedModel, an edge bundle, or a directory that models are published in. SOURCE is an examples artifact,
    or CSV, Parquet or TFRecord files: a file, a directory, a pattern or a URI. A command that was killed goes on where
    it stopped when it is started again. --runner takes edge bundles alone.
    """
    options |= {"key_columns": keys, "format": format_}
    options["examples" if (Path(source) / EXAMPLES_MANIFEST).is_file() else "source"] = source
    if runner:
        options |= {"runner": runner, "pipeline_options": runner_options, "exchange": exchange}
        _python("validation", "-m", PREDICT_BEAM, str(model), str(output), json.dumps(options))
    elif runner_options or exchange:
        raise UserError("--runner-option and --exchange are for a runner of Apache Beam; name it by --runner")
    else:
        _python("tensorflow", "-m", PREDICT, str(model), str(output), json.dumps(options))


def _python(image: str, *arguments: str) -> None:
    """Run the Python of an image; ends this process with its exit status when it fails."""
    command = [sys.executable, "-m", "kfp_hybrid.cli", "python", image, *arguments]
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(status)


COMMANDS = (predict,)
