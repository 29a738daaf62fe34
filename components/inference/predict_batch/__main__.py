"""Batch prediction as a command: `python -m ... MODEL OUTPUT [OPTIONS]`, the options as a JSON object.

The options are those of the component, and `examples`, the folder of an examples artifact, unless they name a `source`.
"""

import argparse
import json
from pathlib import Path

from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.components.inference.predict_batch.predict import predict
from kfp_hybrid.step import step


def main() -> None:
    """Predict, and say how many rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("options", nargs="?", default="{}", type=json.loads)
    given = parser.parse_args()
    with step():
        examples = given.options.pop("examples", None)
        predicted = predict(examples and Path(examples), given.model, None, given.output, Options(**given.options))
        table = f" and a table of {predicted.metadata['keys']:,} keys" if "keys" in predicted.metadata else ""
        version = predicted.metadata["model_version"]
        print(f"wrote {given.output}: {predicted.rows:,} rows by model version {version}{table}")


if __name__ == "__main__":
    main()
