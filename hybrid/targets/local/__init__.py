"""The local target: a compiled pipeline on this machine, with no cluster and no container engine."""

from kfp_hybrid.targets.local.target import LocalTarget

__all__ = ["LocalTarget"]
