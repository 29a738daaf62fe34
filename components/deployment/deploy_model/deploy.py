"""What deploy_model does: checks what it is asked for, and hands it to KServe or to plain Kubernetes."""

import dataclasses
import logging

from kfp_hybrid import engines
from kfp_hybrid.components.deployment import model_contents
from kfp_hybrid.components.deployment.deploy_model.kserve import KServe
from kfp_hybrid.components.deployment.deploy_model.location import Artifact, locate
from kfp_hybrid.components.deployment.deploy_model.names import MANAGER
from kfp_hybrid.components.deployment.deploy_model.plain import PlainDeployment
from kfp_hybrid.components.deployment.deploy_model.request import Request, Result
from kfp_hybrid.kubernetes_api.cluster import Cluster
from kfp_hybrid.kubernetes_api.connection import connect

ROLE = "manifests/base/deployer-role.yaml"

log = logging.getLogger(__name__)


def run_action(request: Request, model: Artifact | None = None) -> Result:
    """Deploy, promote or roll back, and wait until that is done.

    Args:
        request: What to do.
        model: The model artifact, if any.

    Returns:
        The outputs of the component.

    Raises:
        StepError: for whatever keeps it from being done; what was served before goes on being served.
    """
    request.check()
    location = locate(model, request.storage_uri) if request.action == "deploy" else None
    if location:
        request = _settled(request, None if request.storage_uri else model, location.uri)
    api, own_namespace = connect()
    cluster = Cluster(api, request.namespace or own_namespace, manager=MANAGER, role=ROLE)
    serving = KServe(cluster, request) if request.serving == "kserve" else PlainDeployment(cluster, request)
    if location:
        result = serving.deploy(location)
    elif request.action == "promote":
        result = serving.promote()
    else:
        result = serving.rollback()
    log.info(result.summary)
    return result


def _settled(request: Request, model: Artifact | None, uri: str) -> Request:
    """The request with the server that suits the model.

    Raises:
        StepError: the model lacks what the server needs, or nothing says what it holds.
    """
    chosen_by_kserve = request.serving == "kserve" and request.model_format
    if chosen_by_kserve or request.server not in engines.SERVERS:
        return request
    server = model_contents.choose_server(request.server, model, uri)
    log.info("%s is served by %s", uri, server)
    return dataclasses.replace(request, server=server)
