"""What the launching step asks of the nodes, and what they hand back.

Standard library only: both ends read it, in two images. The request travels in an environment variable of the TrainJob,
the answer through a staging folder in the artifact store.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_hybrid.components.training.train_model.parameters import Parameters
from kfp_hybrid.step import StepError

VARIABLE = "KFP_HYBRID_TRAINING"
INPUTS = ("examples", "statistics", "schema")
MODEL, LOGS, RESULT = "model", "logs", "result.json"  # in the staging folder; the result comes last
NODE_LOST = 75  # the exit status of a node that stops because another one has gone: all may start again
LEASE_SECONDS = 1800.0  # longer than a step takes to be tried again, or a store to be repaired
RESERVED = (VARIABLE, "TF_CONFIG", "JOB_COMPLETION_INDEX")


@dataclasses.dataclass(frozen=True)
class Request:
    """A training on several nodes.

    Attributes:
        inputs: name of each of `INPUTS` -> its URI.
        staging: URI of the folder for model, logs and result.
        parameters: those of `train_model`.
        addresses: "host:port" of each node, by its index.
        lease_seconds: how long the nodes train without a sign of life from the launching step.
    """

    inputs: Mapping[str, str]
    staging: str
    parameters: Parameters
    addresses: Sequence[str]
    lease_seconds: float = LEASE_SECONDS

    def to_json(self) -> str:
        """The request as text."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Request":
        """Read what `to_json` wrote.

        Raises:
            StepError: it is something else, as from another version of this package.
        """
        try:
            values = json.loads(text)
            return cls(**{**values, "parameters": Parameters(**values["parameters"])})
        except (ValueError, TypeError, KeyError) as error:
            raise StepError(
                f"the variable {VARIABLE} is no request of this version of kfp-hybrid ({error}); take the image of the "
                "same version as the step's"
            ) from None

    def tf_config(self, index: int) -> dict[str, Any]:
        """What TensorFlow wants in the variable TF_CONFIG of a node; node 0 is the chief.

        Raises:
            StepError: there is no such node.
        """
        if not 0 <= index < len(self.addresses):
            raise StepError(
                f"this pod is node {index}, but the training has nodes 0 to {len(self.addresses) - 1}; "
                "check mlPolicy and the replicated job `node` of the runtime"
            )
        return {"cluster": {"worker": list(self.addresses)}, "task": {"type": "worker", "index": index}}


def nodes_strategy(strategy: str, nodes: int) -> str:
    """The strategy that trains on `nodes` nodes: several take part in one training, with all their devices.

    Raises:
        StepError: the strategy does not go with several nodes.
    """
    if nodes == 1:
        return strategy
    if strategy == "tpu":
        raise StepError(f"parameter strategy is tpu, which is one node here, but nodes is {nodes}; set nodes to 1")
    return "multi_worker"
