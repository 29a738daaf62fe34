"""Where a pipeline runs. A pipeline is a function of a `Target`; what differs between platforms is a method here."""

from abc import ABC, abstractmethod

from kfp import dsl


class Target(ABC):
    """One place where a pipeline runs; the shared pipeline body calls nothing platform-specific but this."""

    @abstractmethod
    def configure(self, task: dsl.PipelineTask, *, resources: str) -> dsl.PipelineTask:
        """Give `task` the resources that the profile calls `resources` (e.g. "training") and return it."""
