"""Batch prediction as a command: `python -m ... MODEL OUTPUT [OPTIONS]`, the options as a JSON object.

The options are those of the component, and `examples`, the folder of an examples artifact, unless they name a `source`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.components.inference.predict_batch.predict import Finish, predict
from kfp_hybrid.step import step


def arguments() -> tuple[Path, Path, dict[str, Any]]:
    """The model, the output and the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("options", nargs="?", default="{}", type=json.loads)
    given = parser.parse_args()
    return given.model, given.output, given.options


def run(model: Path, output: Path, options: dict[str, Any], finish: Finish | None = None) -> None:
    """Predict, and say how many rows; see `predict`.

    Raises:
        SystemExit: predicting failed, for a reason that was printed.
    """
    with step():
        examples = options.pop("examples", None)
        predicted = predict(examples and Path(examples), model, None, output, Options(**options), finish)
        table = f" and a table of {predicted.metadata['keys']:,} keys" if "keys" in predicted.metadata else ""
        print(f"wrote {output}: {predicted.rows:,} rows by model version {predicted.metadata['model_version']}{table}")
