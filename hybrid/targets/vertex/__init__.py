"""The Vertex AI target: Vertex AI Pipelines of a Google Cloud project."""

from kfp_hybrid.targets.vertex.target import VertexTarget

__all__ = ["VertexTarget"]
