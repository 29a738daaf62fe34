"""Kinds of Kubernetes objects."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Attributes:
        api_version: Group and version, such as "apps/v1".
        name: Such as "Deployment".
        plural: Such as "deployments".
        absent: What a cluster that does not know the kind lacks, and what to do, such as
            "KServe; install it, or use serving=deployment"; "" for what every cluster has.
    """

    api_version: str
    name: str
    plural: str
    absent: str = ""

    @property
    def resource(self) -> str:
        """What RBAC calls it, such as `inferenceservices.serving.kserve.io`."""
        group, slash, _ = self.api_version.rpartition("/")
        return f"{self.plural}.{group}" if slash else self.plural

    def path(self, namespace: str) -> str:
        """Where its objects are in the API."""
        root = "apis" if "/" in self.api_version else "api"
        return f"/{root}/{self.api_version}/namespaces/{namespace}/{self.plural}"


DEPLOYMENTS = Kind("apps/v1", "Deployment", "deployments")
SERVICES = Kind("v1", "Service", "services")
SERVICE_ACCOUNTS = Kind("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAPS = Kind("v1", "ConfigMap", "configmaps")
PODS = Kind("v1", "Pod", "pods")
EVENTS = Kind("v1", "Event", "events")
