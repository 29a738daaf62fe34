"""The linter: what in a compiled package would break on this machine, on Kubeflow or on Vertex AI."""

from kfp_hybrid.lint.linter import Finding, lint
from kfp_hybrid.lint.rule import ERROR, KUBEFLOW, LOCAL, TARGETS, VERTEX, WARNING

__all__ = ["ERROR", "KUBEFLOW", "LOCAL", "TARGETS", "VERTEX", "WARNING", "Finding", "lint"]
