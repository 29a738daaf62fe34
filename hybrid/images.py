"""The container images that components run in, named once.

An image is a lock file: `components/images/<name>/requirements.txt`. Its tag is the version of this
package, so that a release of the package always calls the images that were built from it.
"""

from pathlib import Path

from kfp_hybrid import __version__, components

REGISTRY = "ghcr.io/kfp-hybrid"
USER = 10001  # the user and group of the images, by number: a name would not tell Kubernetes that it is not root


def image(name: str, variant: str = "") -> str:
    """The reference of the image `name`, or of a variant of it, for `dsl.component(base_image=...)`."""
    return f"{REGISTRY}/{name}:{__version__}{variant}"


VALIDATION = image("validation")
TENSORFLOW = image("tensorflow")
DEPLOYMENT = image("deployment")
SERVING = image("serving")

MODEL_SERVERS = {"kfp-hybrid": "serving", "kfp-hybrid-tensorflow": "tensorflow"}
"""The images with this collection's model server, by what a profile calls the server on LiteRT and on TensorFlow."""

GPU = "-gpu"
TENSORFLOW_GPU = image("tensorflow", GPU)
"""The same locked versions with CUDA; targets give it to steps that ask for a GPU."""


def name_of(reference: str) -> str:
    """The name in an image reference: `registry.example:5000/ml/validation:1.2@sha256:...` is `validation`."""
    return reference.rpartition("/")[2].partition("@")[0].partition(":")[0]


def names() -> list[str]:
    """The images of this collection, which are those with a lock file."""
    return sorted(lock.parent.name for lock in _folder().glob("*/requirements.txt"))


def lock_file(image: str) -> Path:
    """The lock file of `image`: every package that its steps may import, pinned and hashed."""
    return _folder() / image / "requirements.txt"


def _folder() -> Path:
    return Path(components.__path__[0]) / "images"
