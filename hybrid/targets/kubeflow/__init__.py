"""Open-source Kubeflow Pipelines 2.x."""

from kfp_hybrid.targets.kubeflow.target import KubeflowTarget

__all__ = ["KubeflowTarget"]
