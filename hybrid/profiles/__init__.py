"""Profiles: the places where pipelines run, and what steps get there, as `kfp-hybrid.toml` says.

    profiles = load()
    profile = profiles.target("onprem")
    image_reference(profile, "tensorflow")
    profiles.resources_for("training")

`docs/profiles.md` describes every key.
"""

from kfp_hybrid.profiles.loading import Profiles, find, load
from kfp_hybrid.profiles.models import (
    CookieAuth,
    KubeflowProfile,
    KubernetesSecret,
    LocalProfile,
    NoAuth,
    PortForwardAuth,
    Profile,
    Resources,
    SecretManagerSecret,
    ServiceAccountAuth,
    TokenAuth,
    Toleration,
    VertexProfile,
    image_reference,
    image_references,
)

__all__ = [
    "CookieAuth",
    "KubeflowProfile",
    "KubernetesSecret",
    "LocalProfile",
    "NoAuth",
    "PortForwardAuth",
    "Profile",
    "Profiles",
    "Resources",
    "SecretManagerSecret",
    "ServiceAccountAuth",
    "TokenAuth",
    "Toleration",
    "VertexProfile",
    "find",
    "image_reference",
    "image_references",
    "load",
]
