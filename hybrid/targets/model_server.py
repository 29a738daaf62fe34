"""Which model server a profile means: the same for what tries a model and for what deploys it."""

from kfp_hybrid import engines, images
from kfp_hybrid.accelerators import accelerator
from kfp_hybrid.profiles import KubeflowProfile, Resources, VertexProfile, image_reference

SERVING = "serving"  # the resources of what serves a model


def server(profile: KubeflowProfile | VertexProfile, resources: Resources) -> str:
    """The server of a profile; a GPU, which LiteRT would leave idle, turns auto into the one on TensorFlow.

    Args:
        profile: The profile.
        resources: What serves a model, the resources "serving".
    """
    return "kfp-hybrid-tensorflow" if profile.server == "auto" and has_gpu(resources) else profile.server


def engine(profile: KubeflowProfile | VertexProfile, resources: Resources) -> str:
    """The engine of that server, as `validate_serving` takes it."""
    return engines.SERVERS.get(server(profile, resources), engines.TENSORFLOW)  # the others take a SavedModel


def server_images(profile: KubeflowProfile | VertexProfile, resources: Resources) -> dict[str, str]:
    """The images of this collection's model server where the profile has them, by the name of the server."""
    variant = {"kfp-hybrid-tensorflow": images.GPU} if has_gpu(resources) else {}
    return {
        name: image_reference(profile, image, variant.get(name, "")) for name, image in images.MODEL_SERVERS.items()
    }


def has_gpu(resources: Resources) -> bool:
    """Whether resources have a GPU; a TPU is none."""
    return resources.accelerator is not None and accelerator(resources.accelerator).is_gpu
