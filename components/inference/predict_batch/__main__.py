"""Batch prediction as a command: `python -m ... MODEL EXAMPLES OUTPUT [OPTIONS]`, the options as a JSON object."""

import argparse
import json
from pathlib import Path

from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.components.inference.predict_batch.predict import predict
from kfp_hybrid.step import step


def main() -> None:
    """Predict, and say how many rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "examples", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("options", nargs="?", default="{}", type=json.loads)
    given = parser.parse_args()
    with step():
        predicted = predict(given.examples, given.model, None, given.output, Options(**given.options))
        print(f"wrote {given.output}: {predicted.rows:,} rows by model version {predicted.metadata['model_version']}")


if __name__ == "__main__":
    main()
