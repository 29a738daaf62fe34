"""The servers that deploy_model puts behind a service: the model server of this collection, and TensorFlow Serving."""

from dataclasses import dataclass
from typing import Any

from kfp_hybrid import engines, images

HTTP_PORT, GRPC_PORT = 8501, 8500
DRAIN_SECONDS = 5  # in which requests stop coming to a pod that is to go
METRICS = "prometheus.io/"  # annotations by which Prometheus finds what to read, by convention


@dataclass(frozen=True)
class Server:
    """A server, as pods run it.

    Attributes:
        model_format: KServe's name of what it loads, by which KServe finds its runtime.
        image: Its image for plain Deployments.
        user: The number of the user that it runs as.
        resources: Of its container, where none are asked for.
        ready_path: Answers 200 when it can answer requests; `{service}` stands for the service.
        live_path: Answers 200 as long as it need not be started again.
        metrics_path: Where Prometheus reads; "" for nowhere.
        command: Its command line, `{service}` and `{folder}` filled in; () for the image's own.
        engine: What computes in this collection's model server; "" for another server.
    """

    model_format: str
    image: str
    user: int
    resources: dict[str, Any]
    ready_path: str
    live_path: str
    metrics_path: str = ""
    command: tuple[str, ...] = ()
    engine: str = ""

    def container(self, service: str, folder: str, image: str, resources: dict[str, Any]) -> dict[str, Any]:
        """The part of a pod's container that depends on the server.

        Args:
            service: The name of the service, and of the model in it.
            folder: Where the model is in the container: a version, or the folder of versions.
            image: Its image.
            resources: Requests and limits; {} for the server's own.
        """
        ready, live = (
            {"path": path.format(service=service), "port": "http"} for path in (self.ready_path, self.live_path)
        )
        return {
            "image": image,
            "ports": [
                # The protocol is part of a port's key in an apply; it has no default there.
                {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
                {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            ],
            "resources": resources or self.resources,
            "readinessProbe": {"httpGet": ready, "periodSeconds": 2},
            "livenessProbe": {"httpGet": live, "periodSeconds": 10, "failureThreshold": 6},
            "startupProbe": {"httpGet": ready, "periodSeconds": 2, "failureThreshold": 900},
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(DRAIN_SECONDS)]}}},
            **(
                {"command": [part.format(service=service, folder=folder) for part in self.command]}
                if self.command
                else {}
            ),
        }

    @property
    def annotations(self) -> dict[str, str]:
        """Annotations of its pods."""
        if not self.metrics_path:
            return {}
        return {f"{METRICS}scrape": "true", f"{METRICS}port": str(HTTP_PORT), f"{METRICS}path": self.metrics_path}


TENSORFLOW_SERVING = Server(
    model_format="tensorflow",
    image="tensorflow/serving:2.19.1",
    user=1000,  # its image names none, so that it would run as root
    resources={"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "2Gi"}},
    ready_path="/v1/models/{service}",
    live_path="/v1/models/{service}",
)

DRAIN_TIMEOUT = 20  # seconds for what a server has accepted; with `DRAIN_SECONDS` less than the 30 that pods are given


def _ours(model_format: str, image: str, engine: str, request: str, limit: str) -> Server:
    """This collection's model server."""
    options = {"--name": "{service}", "--engine": engine, "--host": "0.0.0.0", "--port": HTTP_PORT,  # noqa: S104
               "--grpc-port": GRPC_PORT, "--drain-timeout": DRAIN_TIMEOUT}  # fmt: skip
    return Server(
        model_format=model_format,
        image=image,
        user=images.USER,
        resources={"requests": {"cpu": "1", "memory": request}, "limits": {"memory": limit}},
        ready_path="/v2/health/ready",
        live_path="/v2/health/live",
        metrics_path="/metrics",
        command=(
            "python",
            "-m",
            "kfp_hybrid.serving",
            "{folder}",
            *(str(word) for pair in options.items() for word in pair),
        ),
        engine=engine,
    )


LITERT = _ours("kfp-hybrid", images.SERVING, engines.LITERT, request="256Mi", limit="1Gi")
TENSORFLOW = _ours("kfp-hybrid-tensorflow", images.TENSORFLOW, engines.TENSORFLOW, request="2Gi", limit="2Gi")

AUTO = "auto"  # this collection's server, on the engine that suits the model
SERVERS = {"kfp-hybrid": LITERT, "kfp-hybrid-tensorflow": TENSORFLOW, "tensorflow-serving": TENSORFLOW_SERVING}
