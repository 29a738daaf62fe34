"""TensorBoard logs of a finished training, written without the package tensorboard.

An event file is a TFRecord of `Event` protos. Written from the history, it holds the epochs before an
interruption too, with the time at which each really ended.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

VALIDATION_PREFIX = "val_"
TIME = "time"


def write_event_log(folder: Path, history: Sequence[dict[str, float]]) -> None:
    """Write the scalars of every epoch for TensorBoard, in the runs `train` and `validation`, as Keras names them.

    Args:
        folder: made; receives one folder per run.
        history: metrics of each epoch by name ("loss", "val_loss", ...), and "time", its end in seconds since 1970.
    """
    runs: dict[str, dict[str, str]] = {"train": {}, "validation": {}}
    for name in history[0]:
        if name.startswith(VALIDATION_PREFIX):
            runs["validation"][name] = f"epoch_{name.removeprefix(VALIDATION_PREFIX)}"
        elif name != TIME:
            runs["train"][name] = f"epoch_{name}"
    for run, tags in runs.items():
        if tags:
            _write_run(folder / run, tags, history)


def _write_run(folder: Path, tags: dict[str, str], history: Sequence[dict[str, float]]) -> None:
    folder.mkdir(parents=True)
    start = history[0][TIME]
    with tf.io.TFRecordWriter(os.fspath(folder / f"events.out.tfevents.{int(start)}.train_model")) as writer:
        writer.write(tf.compat.v1.Event(wall_time=start, file_version="brain.Event:2").SerializeToString())
        for epoch, metrics in enumerate(history):
            values = [tf.compat.v1.Summary.Value(tag=tag, simple_value=metrics[name]) for name, tag in tags.items()]
            event = tf.compat.v1.Event(wall_time=metrics[TIME], step=epoch, summary=tf.compat.v1.Summary(value=values))
            writer.write(event.SerializeToString())
