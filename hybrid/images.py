"""The container images that components run in, named once.

An image is a lock file: `components/images/<name>/requirements.txt`. Its tag is the version of this
package, so that a release of the package always calls the images that were built from it.
"""

from kfp_hybrid import __version__

REGISTRY = "ghcr.io/kfp-hybrid"


def image(name: str) -> str:
    """The reference of the image `name`, for `dsl.component(base_image=...)`."""
    return f"{REGISTRY}/{name}:{__version__}"


VALIDATION = image("validation")
TENSORFLOW = image("tensorflow")
DEPLOYMENT = image("deployment")
