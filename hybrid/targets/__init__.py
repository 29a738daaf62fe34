"""Where a pipeline runs. A pipeline is a function of a `Target`; what differs between platforms is a method here.

target = open_target("onprem", profiles, cache)
target.compile(pipeline(target), path)
status = target.submit(Package.load(path), {"epochs": 3})
target.watch(status.id, console)
"""

from kfp_hybrid.targets.doctor import Check
from kfp_hybrid.targets.interface import Target
from kfp_hybrid.targets.opening import open_target
from kfp_hybrid.targets.runs import Registration, RunStatus, Schedule, StepStatus

__all__ = ["Check", "Registration", "RunStatus", "Schedule", "StepStatus", "Target", "open_target"]
