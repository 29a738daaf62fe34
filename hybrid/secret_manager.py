"""Secrets of Google's Secret Manager in the environment of a step, which holds references instead of values."""

import base64
import binascii
from collections.abc import Mapping, MutableMapping

from kfp_hybrid.google_api import GoogleApi
from kfp_hybrid.step import SECRET_SCHEME, StepError

ENDPOINT = "https://secretmanager.googleapis.com"


def references(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that refer to a secret, and the secret version that each refers to."""
    return {name: value[len(SECRET_SCHEME) :] for name, value in environment.items() if value.startswith(SECRET_SCHEME)}


def resolve(environment: MutableMapping[str, str], api: GoogleApi | None = None) -> None:
    """Replace references to secrets by the secrets, all or none.

    Args:
        environment: The environment of a step.
        api: How to reach Secret Manager; by default with the credentials of the step.

    Raises:
        StepError: a secret cannot be read; which, and why, but never its value.
    """
    api = api or GoogleApi(ENDPOINT)
    environment.update({name: _read(api, name, version) for name, version in references(environment).items()})


def _read(api: GoogleApi, variable: str, version: str) -> str:
    what = f"reading the secret {version} for {variable}"
    answer = api.get(f"v1/{version}:access", what=what)
    try:
        return base64.b64decode(answer["payload"]["data"], validate=True).decode()
    except (KeyError, TypeError, ValueError, binascii.Error):  # never `from`: the cause shows the value
        raise StepError(f"{what}: its value is empty or is not UTF-8 text") from None
