"""A way into a cluster that shows its services to nobody: from a port of this machine to a pod, through the API server.

It needs what the Kubernetes client needs, a kubeconfig, and no program beside it, such as kubectl; and it ends with
this process, however that ends.
"""

import functools
import logging
import socket
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles.models import PortForwardAuth
from kfp_hybrid.targets.reality import reason

if TYPE_CHECKING:
    from kubernetes.client import CoreV1Api

PIECE = 1 << 16

log = logging.getLogger(__name__)


class PortForward:
    """A port-forward to a service of a cluster."""

    def __init__(self, auth: PortForwardAuth) -> None:
        self.auth = auth
        self._listener: socket.socket | None = None

    def open(self) -> str:
        """Begin, and return the address of this end. Only this machine can use it.

        Raises:
            UserError: the cluster cannot be reached, or it has no such service, or nothing answers there.
        """
        self._pod()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """End it. Connections that are open go on until either side closes them."""
        if self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def core(self) -> "CoreV1Api":
        """A client of the Kubernetes API.

        Raises:
            UserError: the kubeconfig cannot be read.
        """
        from kubernetes import client, config

        file = str(self.auth.file) if self.auth.file else None
        try:
            api = config.new_client_from_config(config_file=file, context=self.auth.context)
        except (config.ConfigException, OSError) as error:
            where = f"the kubeconfig {self.auth.file}" if self.auth.file else "the kubeconfig ($KUBECONFIG)"
            raise UserError(f"cannot use {where}: {' '.join(str(error).split())}") from None
        return client.CoreV1Api(api)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """One connection. The pod is looked up each time: it may have been replaced by another."""
        from kubernetes.stream import portforward

        with connection:
            try:
                pod, port = self._pod()
                # The stream replaces methods of the client while it connects, so each has a client of its own.
                forward = portforward(
                    self.core().connect_get_namespaced_pod_portforward, pod, self.auth.namespace, ports=str(port)
                )
            except Exception as error:  # a thread has nobody else to tell
                log.warning("the port-forward to %s is cut: %s", self.auth.service, reason(error))
                return
            with closing(forward.socket(port)) as remote:
                upwards = threading.Thread(target=_copy, args=(connection, remote), daemon=True)
                upwards.start()
                _copy(remote, connection)
                upwards.join()
            if forward.error(port):
                log.warning("the port-forward to %s is cut: %s", self.auth.service, forward.error(port))

    def _pod(self) -> tuple[str, int]:
        """A running pod of the service, and the port that it listens on."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        auth = self.auth
        where = f"service {auth.service} in namespace {auth.namespace}"
        try:
            service = self._core.read_namespaced_service(auth.service, auth.namespace)
            selector = ",".join(f"{key}={value}" for key, value in (service.spec.selector or {}).items())
            pods = self._core.list_namespaced_pod(auth.namespace, label_selector=selector).items if selector else []
        except ApiException as error:
            if error.status == 404:
                raise UserError(f"there is no {where}; see namespace and service of auth in the profile") from None
            raise UserError(
                f"the cluster does not let you look up {where} ({error.status} {error.reason}); port-forwards need the "
                "rights to get services, list pods, and create pods/portforward"
            ) from None
        except HTTPError as error:
            raise UserError(f"cannot reach the cluster of the kubeconfig: {reason(error)}") from None
        ports = [port for port in service.spec.ports if port.port == auth.port]
        if not ports:
            offered = ", ".join(str(port.port) for port in service.spec.ports)
            raise UserError(f"{where} has no port {auth.port}; it has: {offered}")
        for pod in pods:
            if _is_ready(pod):
                return pod.metadata.name, _port_of(pod, ports[0].target_port)
        raise UserError(f"no pod of {where} is ready; see `kubectl get pods -n {auth.namespace}`")

    @functools.cached_property
    def _core(self) -> "CoreV1Api":
        return self.core()


def _is_ready(pod: Any) -> bool:
    conditions = {condition.type: condition.status for condition in pod.status.conditions or []}
    return pod.metadata.deletion_timestamp is None and conditions.get("Ready") == "True"


def _port_of(pod: Any, target: Any) -> int:
    """The number of a target port, which a service may give by the name that the pod has for it."""
    if isinstance(target, int) or str(target).isdigit():
        return int(target)
    return next(
        port.container_port
        for container in pod.spec.containers
        for port in container.ports or []
        if port.name == target
    )


def _copy(source: Any, sink: Any) -> None:
    """Pass on what comes until one side ends; then both ends are of no use."""
    with suppress(OSError):
        while piece := source.recv(PIECE):
            sink.sendall(piece)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
