"""What the packages of all clusters have in common: each step runs in the image that the profile has for it."""

import re

from google.protobuf import json_format

from kfp_hybrid import images
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import Profile, image_reference
from kfp_hybrid.targets.interface import Component


def use_images(pipeline: Component, profile: Profile) -> None:
    """Put the images of a target into a pipeline, before it is compiled; images from elsewhere are left alone.

    Components name the images of this collection by their public references. Where a target has them is the profile's
    business, so all references are exchanged here, also those that stand inside of an argument, as in a custom job.

    Args:
        pipeline: The pipeline; it is changed.
        profile: The target.

    Raises:
        UserError: it is no pipeline but a single component.
    """
    spec = getattr(pipeline.component_spec.implementation, "graph", None)
    if spec is None:
        raise UserError(f"{pipeline.name} is a single component; call it in a function with @dsl.pipeline")
    references = {images.image(name): image_reference(profile, name) for name in images.names()}
    ours = re.compile(rf"(?<![-\w./])(?:{'|'.join(map(re.escape, references))})(?![-\w.@])")
    text = ours.sub(lambda found: references[found[0]], json_format.MessageToJson(spec))
    spec.Clear()
    json_format.Parse(text, spec)
