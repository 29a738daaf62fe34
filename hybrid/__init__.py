"""Kubeflow Pipelines components for TensorFlow that run on a laptop, on Kubeflow and on Vertex AI."""

__version__ = "0.1.0"
