"""Where a model is trained: on one device, on all devices of this machine, or on several machines."""

import logging
import signal

import tensorflow as tf

from kfp_hybrid.components.training.train_model.cluster import WorkerLost
from kfp_hybrid.step import StepError


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


def agree(strategy: tf.distribute.Strategy, number: int) -> bool:
    """Whether all workers call this with the same number."""
    numbers = strategy.run(lambda: tf.constant([number]))
    return len(set(strategy.gather(numbers, axis=0).numpy().tolist())) == 1


def _multi_worker() -> tf.distribute.Strategy:
    logging.info("waiting for the other workers of TF_CONFIG")
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise WorkerLost(f"strategy is multi_worker, but the workers cannot meet: {_one_line(error)}") from None
    # TensorFlow has taken SIGTERM for a notice of preemption that nobody reads here; the step is to stop at once.
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    return strategy


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
