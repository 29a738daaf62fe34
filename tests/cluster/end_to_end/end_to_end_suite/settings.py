"""Which Kubeflow Pipelines the suite runs on: a target of the profiles, or plain variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp_hybrid import profiles
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import KubeflowProfile, Resources
from kfp_hybrid.targets.kubeflow import KubeflowTarget

PREFIX = "KFP_HYBRID_TEST_"
TARGET, HOST, TOKEN = f"{PREFIX}TARGET", f"{PREFIX}HOST", f"{PREFIX}TOKEN"
PORT_FORWARD = "port-forward"
PLAIN = ("namespace", "pipeline_root", "registry", "service_account")
"""What of a profile can also be given as a variable."""
NOTHING_SET = (
    f"no Kubeflow Pipelines to test: set {TARGET} to a target of kind kubeflow in $KFP_HYBRID_CONFIG or "
    f"./kfp-hybrid.toml, or {HOST} to the address of its console or to {PORT_FORWARD}; see docs/testing-on-a-cluster.md"
)


def open_target(environ: Mapping[str, str], experiment: str, folder: Path) -> KubeflowTarget | None:
    """The target that the variables name, with an experiment of its own; None when they name none.

    Args:
        environ: The variables.
        experiment: The experiment of all runs.
        folder: A private folder, for a token that is given as a variable.

    Raises:
        UserError: the profile is missing, wrong or not for Kubeflow.
    """
    if name := environ.get(TARGET):
        loaded = profiles.load()
        profile, resources_for = loaded.target(name), loaded.resources_for
        if not isinstance(profile, KubeflowProfile):
            raise UserError(f"{TARGET} names {name}, which is of kind {profile.kind}; the suite runs on Kubeflow")
    elif environ.get(HOST):
        name, resources_for = "cluster", lambda _: Resources()
        profile = KubeflowProfile.model_validate(_plain(environ, folder))
    else:
        return None
    return KubeflowTarget(name, profile.model_copy(update={"experiment": experiment}), resources_for)


def _plain(environ: Mapping[str, str], folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = {"kind": "kubeflow"}
    if environ[HOST] == PORT_FORWARD:
        settings["auth"] = {"kind": "kubeconfig"}
    else:
        settings["host"] = environ[HOST]
    if token := environ.get(TOKEN):
        file = folder / "token"
        file.touch(0o600)
        file.write_text(token)
        settings["auth"] = {"kind": "token", "file": str(file)}
    given = {key: environ.get(f"{PREFIX}{key.upper()}") for key in PLAIN}
    return {**settings, **{key: value for key, value in given.items() if value}}
