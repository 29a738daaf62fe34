"""What deploy_model is asked for."""

import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kfp_hybrid.components.deployment.deploy_model.servers import AUTO, SERVERS, Server
from kfp_hybrid.step import StepError

ACTIONS = ("deploy", "promote", "rollback")
SERVINGS = ("kserve", "deployment")
NAME = re.compile(r"[a-z]([-a-z0-9]{0,43}[a-z0-9])?")  # with what KServe and Knative append it has to stay below 63


class Result(NamedTuple):
    """The outputs of the component."""

    url: str
    revision: str
    storage_uri: str
    changed: bool
    summary: str


@dataclass(frozen=True)
class Request:
    """The component's inputs, except for the model; see the component for what each one means."""

    service: str
    action: str = "deploy"
    canary_percent: int = 100
    serving: str = "kserve"
    server: str = AUTO
    namespace: str = ""
    storage_uri: str = ""
    storage_secret: str = ""
    service_account: str = ""
    model_format: str = ""
    runtime: str = ""
    image: str = ""
    server_images: dict[str, str] = field(default_factory=dict)
    download_image: str = ""
    pull_secrets: list[str] = field(default_factory=list)
    min_replicas: int = 1
    max_replicas: int = 0
    resources: dict[str, Any] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[dict[str, Any]] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    force: bool = False
    timeout_seconds: int = 900
    run: str = ""

    @property
    def model_server(self) -> Server:
        """The server of that name, once `AUTO` is settled."""
        return SERVERS[self.server]

    @property
    def server_image(self) -> str:
        """The server's image."""
        return self.image or self.server_images.get(self.server) or self.model_server.image

    @property
    def pull_secret_references(self) -> dict[str, list[dict[str, str]]]:
        """The field of a pod that names the secrets with which its images are pulled, if there are any."""
        return {"imagePullSecrets": [{"name": name} for name in self.pull_secrets]} if self.pull_secrets else {}

    @property
    def brings_runtime(self) -> bool:
        """Whether KServe is given a runtime together with the model: for our server, unless another is asked for."""
        return not self.runtime and not self.model_format and bool(self.model_server.engine)

    @property
    def format(self) -> str:
        """KServe's name of the model's format."""
        return self.model_format or self.model_server.model_format

    def check(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            StepError: names the input and what it takes.
        """
        if not NAME.fullmatch(self.service):
            raise StepError(
                f"service is {self.service!r}; give lower-case letters, digits and dashes, at most 45 of them, "
                "the first a letter and the last no dash"
            )
        _one_of("action", self.action, ACTIONS)
        _one_of("serving", self.serving, SERVINGS)
        _one_of("server", self.server, (AUTO, *SERVERS))
        if unknown := set(self.server_images) - set(SERVERS):
            raise StepError(f"server_images has {', '.join(sorted(unknown))}; it takes {', '.join(SERVERS)}")
        _between("canary_percent", self.canary_percent, 1, 100, "to take all requests from a model, use rollback")
        _between("min_replicas", self.min_replicas, 0, 10_000)
        _between("max_replicas", self.max_replicas, 0, 10_000)
        _between("timeout_seconds", self.timeout_seconds, 1, 7 * 24 * 3600)
        if 0 < self.max_replicas < self.min_replicas:
            raise StepError(f"max_replicas is {self.max_replicas}, less than min_replicas {self.min_replicas}")
        if unknown := set(self.resources) - {"requests", "limits"}:
            raise StepError(
                f"resources has {', '.join(sorted(unknown))}; it takes requests and limits, "
                'such as {"limits": {"memory": "2Gi"}}'
            )
        if self.serving == "kserve" and self.storage_secret and self.service_account:
            raise StepError(
                "with KServe, give either storage_secret or service_account: "
                "a service account of your own lists its secrets itself"
            )


def _one_of(name: str, value: str, values: tuple[str, ...]) -> None:
    if value not in values:
        raise StepError(f"{name} is {value!r}; it takes {', '.join(values[:-1])} or {values[-1]}")


def _between(name: str, value: int, least: int, most: int, hint: str = "") -> None:
    if not least <= value <= most:
        raise StepError(f"{name} is {value}; it takes {least} to {most}{'; ' if hint else ''}{hint}")
