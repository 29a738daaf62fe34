"""The interface of shift_endpoint_traffic."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def shift_endpoint_traffic(
    service: str,
    project: str,
    location: str,
    action: str = "promote",
    undeploy: bool = False,
    api_endpoint: str = "",
) -> NamedTuple("Outputs", [("traffic_split", dict), ("changed", bool), ("summary", str)]):  # type: ignore[valid-type]
    """End a canary on an endpoint of Vertex AI: give the new model everything, or take it back.

    Asked for again, it changes nothing.

    Args:
        service: The display name of the endpoint.
        project: The Google Cloud project.
        location: The region, such as europe-west4.
        action: promote gives the newest model all requests. rollback gives them to the model before it: the one that
            answers most of the others, or else the newest that was never rolled back.
        undeploy: Take the models that get no requests off the endpoint, so that their machines cost nothing more. There
            is no rollback to them then.
        api_endpoint: The address of the Vertex AI API, where it is not the public one of the region.

    Returns:
        traffic_split: The percentage of requests by the id of the model on the endpoint.
        changed: Whether anything was changed.
        summary: What was done, in one sentence.
    """
    from kfp_hybrid.components.deployment.shift_endpoint_traffic.shift import shift
    from kfp_hybrid.components.deployment.vertex_endpoints import regional_api
    from kfp_hybrid.step import step

    with step():
        api = regional_api(location, api_endpoint)
        return shift(api, f"projects/{project}/locations/{location}", service, action, undeploy=undeploy)
