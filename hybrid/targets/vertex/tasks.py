"""What a pipeline asks of Vertex AI, each a function of the profile and the resources."""

from kfp_hybrid.targets.vertex.automl import train_tabular
from kfp_hybrid.targets.vertex.prediction import predict_batch
from kfp_hybrid.targets.vertex.serving import deploy, shift_traffic
from kfp_hybrid.targets.vertex.steps import configure
from kfp_hybrid.targets.vertex.training import train

__all__ = ["configure", "deploy", "predict_batch", "shift_traffic", "train", "train_tabular"]
