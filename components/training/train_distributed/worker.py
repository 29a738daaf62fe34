"""One node of a training on several: `python -m kfp_hybrid.components.training.train_distributed.worker` in its pod.

It fetches the inputs, joins the other nodes, calls the same `train` as the component `train_model`, and the first node
hands back the result. Nothing here knows Kubernetes but for the names of two variables.
"""

import dataclasses
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

from kfp_hybrid import storage
from kfp_hybrid.components.training.train_distributed.lease import end_when_abandoned
from kfp_hybrid.components.training.train_distributed.request import (
    INPUTS,
    LOGS,
    MODEL,
    NODE_LOST,
    RESULT,
    VARIABLE,
    Request,
)
from kfp_hybrid.components.training.train_model.cluster import WorkerLost, is_chief
from kfp_hybrid.components.training.train_model.parameters import Trained
from kfp_hybrid.components.training.train_model.training import train
from kfp_hybrid.step import StepError, step


def run(request: Request, index: int, folder: Path) -> Trained:
    """Do the part of one node.

    Args:
        request: the training.
        index: which node this is.
        folder: where inputs and outputs go meanwhile.

    Returns:
        What the training tells about itself; the same on every node.

    Raises:
        WorkerLost: another node has gone; all may start again.
        StepError: see `train` and the storage module.
    """
    strategy = request.parameters.strategy
    if index == 0:  # the others end with it
        end_when_abandoned(request.staging, request.lease_seconds)
    if strategy == "multi_worker":
        os.environ["TF_CONFIG"] = json.dumps(request.tf_config(index))
    logging.info("node %d of %d: fetching the inputs", index, len(request.addresses))
    for name in INPUTS:
        storage.download(request.inputs[name], folder / name)
    examples, statistics, schema = (folder / name for name in INPUTS)
    trained = train(examples, statistics, schema, request.parameters, folder / MODEL, folder / LOGS)
    if is_chief(strategy):
        _hand_back(trained, request.staging, folder)
    return trained


def _hand_back(trained: Trained, staging: str, folder: Path) -> None:
    """Put the outputs into the staging folder, the result last: where it is, everything is."""
    logging.info("handing the model back to the launching step")
    for name in (MODEL, LOGS):
        storage.upload(folder / name, f"{staging}/{name}")
    (folder / RESULT).write_text(json.dumps(dataclasses.asdict(trained)), encoding="utf-8")
    storage.upload(folder / RESULT, f"{staging}/{RESULT}")


def _index() -> int:
    text = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not text.isdigit():
        raise StepError(f"JOB_COMPLETION_INDEX is {text!r}, must be the index of this pod; run it in an indexed Job")
    return int(text)


def main() -> None:
    """Do the part of the node that the environment names.

    Raises:
        SystemExit: status 1 for what another try would not mend, 75 when another node has gone, 143 after SIGTERM.
    """
    with step(), tempfile.TemporaryDirectory(prefix="training-") as folder:
        request = Request.from_json(os.environ.get(VARIABLE, ""))
        try:
            run(request, _index(), Path(folder))
        except WorkerLost as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            raise SystemExit(NODE_LOST) from None


if __name__ == "__main__":
    main()
