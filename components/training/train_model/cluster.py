"""The cluster of several workers that the environment variable TF_CONFIG describes. No TensorFlow here."""

import json
import os
from typing import Any

from kfp_hybrid.step import StepError


class WorkerLost(StepError):
    """Another worker has gone, or never came; what all of them can mend by starting again."""


def is_chief(strategy: str) -> bool:
    """Whether this process publishes the result: the only one, or the first of several workers."""
    if strategy != "multi_worker":
        return True
    first = "chief-0" if "chief" in tf_config()["cluster"] else "worker-0"
    return worker_name(strategy) == first


def worker_name(strategy: str) -> str:
    """Which of several workers this process is ("worker-1"), or an empty string when there is only one."""
    if strategy != "multi_worker":
        return ""
    task = tf_config()["task"]
    return f"{task['type']}-{task['index']}"


def tf_config() -> dict[str, Any]:
    """The cluster and this process's task in it.

    Raises:
        StepError: the variable is not set, or not what TensorFlow expects.
    """
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        cluster, task = config["cluster"], config["task"]
        if not 0 <= int(task["index"]) < len(cluster[task["type"]]):
            raise ValueError("its task is not in its cluster")
    except (ValueError, KeyError, TypeError) as error:
        what = f"is not usable ({error})" if "TF_CONFIG" in os.environ else "is not set"
        raise StepError(
            f"strategy is multi_worker, but the environment variable TF_CONFIG {what}; set cluster and task on every "
            "worker, or use strategy mirrored for several devices of one machine"
        ) from None
    return config
