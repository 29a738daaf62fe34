"""Lists of the images of others, in the form of manifests/images.yaml, and what to do with them."""

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pydantic
import yaml

from kfp_hybrid.errors import UserError


class ThirdParty(pydantic.BaseModel):
    """An image of somebody else.

    Attributes:
        name: With its registry, without a tag.
        tag: Its version.
        digest: What the registry calls exactly this image; empty when nobody has put it into the list yet.
        use: What needs it.
    """

    model_config = pydantic.ConfigDict(extra="forbid")

    name: str = pydantic.Field(pattern=r"^[a-z0-9.-]+\.[a-z]+(:\d+)?(/[a-z0-9._-]+)+$")
    tag: str = pydantic.Field(pattern=r"^[\w][\w.-]*$")
    digest: str = pydantic.Field(default="", pattern=r"^(sha256:[0-9a-f]{64})?$")
    use: str = pydantic.Field(default="", alias="for")

    @property
    def reference(self) -> str:
        """The name and the tag."""
        return f"{self.name}:{self.tag}"

    @property
    def path(self) -> str:
        """What a site's own registry calls it: the same, without the host."""
        return self.reference.partition("/")[2]


class _File(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    images: list[ThirdParty]


def read_all(files: Iterable[Path]) -> list[ThirdParty]:
    """The images of several lists, each once; of two entries for an image, one with a digest is taken.

    Raises:
        UserError: a file cannot be read or is no such list, or two give different digests.
    """
    images: dict[str, ThirdParty] = {}
    for file in files:
        for image in read(file):
            other = images.get(image.reference, image)
            if image.digest and other.digest and image.digest != other.digest:
                raise UserError(f"{file}: {image.reference} has another digest than in another list; give one of them")
            images[image.reference] = image if image.digest else other
    return list(images.values())


def read(file: Path) -> list[ThirdParty]:
    """The images of a list.

    Raises:
        UserError: the file cannot be read or is no such list.
    """
    try:
        return _File.model_validate(yaml.safe_load(file.read_text("utf-8"))).images
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not YAML: {' '.join(str(error).split())[:200]}") from None
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(
            f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}; see manifests/images.yaml"
        ) from None


def pin(manifests: str, listed: Iterable[ThirdParty]) -> str:
    """Check that a manifest names no image that is not in the list, and put in the digests that the list knows.

    Args:
        manifests: What `kubectl kustomize` wrote.
        listed: The images that are known.

    Raises:
        UserError: there is an image that is not in the list.
    """

    def pinned(found: re.Match[str], image: ThirdParty) -> str:
        return found["reference"] + (f"@{image.digest}" if image.digest else found["digest"])

    return _replaced(manifests, listed, pinned)


def relocate(manifests: str, listed: Iterable[ThirdParty], registry: str) -> str:
    """Put the images that a manifest names into `registry`, by tag: a digest changes on the way.

    Raises:
        UserError: there is an image that is not in the list.
    """
    return _replaced(manifests, listed, lambda _, image: f"{registry}/{image.path}")


def _replaced(manifests: str, listed: Iterable[ThirdParty], name: Callable[[re.Match[str], ThirdParty], str]) -> str:
    known = {_full(image.reference): image for image in listed}

    def replaced(match: re.Match[str]) -> str:
        image = known.get(_full(match["reference"]))
        if image is None:
            raise UserError(
                f"the manifests name {match['reference']}, which is not in the list of known images; add it"
            )
        return match["before"] + name(match, image) + match["after"]

    return _IMAGE.sub(replaced, manifests)


# The image of a container, or of what a ConfigMap says that containers are made of; and the values and arguments by
# which Kubeflow Pipelines and Argo are told of images, which are known by the host before their name and by a tag.
_IMAGE = re.compile(
    r"^(?P<before> *(?:- )?(?:\w*[iI]mage: *[\"']?(?=[a-z0-9])|(?:value: *)?[\"']?(?=[a-z0-9-]+\.[a-z0-9.-]+/\S+:)))"
    r"(?P<reference>(?:[a-z0-9.-]+(?::\d+)?/)*[a-z0-9._-]+(?::[\w.-]+)?)(?P<digest>(?:@sha256:[0-9a-f]{64})?)(?P<after>[\"']?)$",
    re.M,
)


def _full(reference: str) -> str:
    """A reference with what Docker takes for granted: the tag latest, docker.io, library for the official images."""
    if ":" not in reference.rpartition("/")[2]:
        reference = f"{reference}:latest"
    first, slash, rest = reference.partition("/")
    if not slash or not ("." in first or ":" in first):
        first, rest = "docker.io", reference
    return f"docker.io/library/{rest}" if first == "docker.io" and "/" not in rest else f"{first}/{rest}"


if __name__ == "__main__":  # python -m kfp_hybrid.bundle.third_party LIST < MANIFESTS > PINNED
    try:
        sys.stdout.write(pin(sys.stdin.read(), read(Path(sys.argv[1]))))
    except UserError as error:
        sys.exit(f"error: {error}")
