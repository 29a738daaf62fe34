"""From a profile to the target that it describes."""

from pathlib import Path

from kfp_hybrid.profiles import KubeflowProfile, Profiles, VertexProfile
from kfp_hybrid.targets.interface import Target


def open_target(name: str, profiles: Profiles, cache: Path) -> Target:
    """The target `name`. Nothing is contacted yet.

    Args:
        name: A target of the profiles.
        profiles: The targets and resources to choose from.
        cache: Where the local target keeps environments and the results of steps.

    Raises:
        UserError: there is no such target, or a package that it needs is not installed.
    """
    profile = profiles.target(name)
    # Each platform's clients take seconds to import, so only the one that is asked for is.
    if isinstance(profile, KubeflowProfile):
        from kfp_hybrid.targets.kubeflow import KubeflowTarget

        return KubeflowTarget(name, profile, profiles.resources_for)
    if isinstance(profile, VertexProfile):
        from kfp_hybrid.targets.vertex import VertexTarget

        return VertexTarget(name, profile, profiles.resources_for)
    from kfp_hybrid.targets.local import LocalTarget

    return LocalTarget(cache, name)
