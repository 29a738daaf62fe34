"""Where a model is trained: on one device, on all devices of this machine, or on several machines."""

import json
import logging
import os
from typing import Any

import tensorflow as tf

from kfp_hybrid.step import StepError

STRATEGIES = ("none", "mirrored", "multi_worker", "tpu")


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Make the `tf.distribute` strategy that a parameter names.

    Raises:
        StepError: this machine or its configuration has not got what the strategy needs.
    """
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    elif name == "multi_worker":
        strategy = _multi_worker()
    elif name == "tpu":
        strategy = _tpu()
    else:
        strategy = tf.distribute.get_strategy()
    if name != "none":
        logging.info("strategy %s trains on %d replicas", name, strategy.num_replicas_in_sync)
    return strategy


def is_chief(name: str) -> bool:
    """Whether this process publishes the result: the only one, or the first of several workers."""
    if name != "multi_worker":
        return True
    config = _tf_config()
    return worker_name(name) == ("chief-0" if "chief" in config["cluster"] else "worker-0")


def worker_name(name: str) -> str:
    """Which of several workers this process is ("worker-1"), or an empty string when there is only one."""
    if name != "multi_worker":
        return ""
    task = _tf_config()["task"]
    return f"{task['type']}-{task['index']}"


def agree(strategy: tf.distribute.Strategy, number: int) -> bool:
    """Whether all workers call this with the same number."""
    numbers = strategy.run(lambda: tf.constant([number]))
    return len(set(strategy.gather(numbers, axis=0).numpy().tolist())) == 1


def _multi_worker() -> tf.distribute.Strategy:
    _tf_config()
    logging.info("waiting for the other workers of TF_CONFIG")
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise StepError(f"strategy is multi_worker, but the workers cannot meet: {_one_line(error)}") from None


def _tf_config() -> dict[str, Any]:
    """The cluster that the environment describes, read when it is needed."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        cluster, task = config["cluster"], config["task"]
        if not 0 <= int(task["index"]) < len(cluster[task["type"]]):
            raise ValueError("its task is not in its cluster")
    except (ValueError, KeyError, TypeError) as error:
        what = f"is not usable ({_one_line(error)})" if "TF_CONFIG" in os.environ else "is not set"
        raise StepError(
            f"strategy is multi_worker, but the environment variable TF_CONFIG {what}; set cluster and task on every "
            "worker, or use strategy mirrored for several devices of one machine"
        ) from None
    return config


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver()
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, KeyError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise StepError(
            f"strategy is tpu, but no TPU was found ({_one_line(error)}); run the step on a TPU machine, or use none"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
