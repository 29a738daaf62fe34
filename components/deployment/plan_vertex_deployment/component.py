"""The interface of plan_vertex_deployment."""

from typing import NamedTuple

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def plan_vertex_deployment(
    model: dsl.Input[dsl.Artifact],
    service: str,
    project: str,
    location: str,
    canary_percent: int = 100,
    labels: dict = {},  # noqa: B006 - kfp copies it into the package
    server: str = "auto",
    server_images: dict = {},  # noqa: B006
    api_endpoint: str = "",
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        ("deploy", bool),
        ("upload", str),
        ("source_uri", str),
        ("model_name", str),
        ("model_uri", str),
        ("endpoint_exists", bool),
        ("endpoint_name", str),
        ("endpoint_uri", str),
        ("server_image", str),
        ("traffic_split", dict),
        ("labels", dict),
        ("summary", str),
    ],
):
    """Find out what deploying a model to Vertex AI takes: which endpoint and model are there, and who answers what.

    It changes nothing. A model whose content is on the endpoint already needs no deployment.

    Args:
        model: What push_model put out, an imported model on Cloud Storage, or a model of the registry
            (google.VertexModel).
        service: The display name of the endpoint and of the model in the registry: lower-case letters, digits and
            hyphens.
        project: The Google Cloud project.
        location: The region, such as europe-west4.
        canary_percent: The share of requests for the new model, 0 to 100; the others keep their proportions in the
            rest. The first model of an endpoint gets all of them.
        labels: Labels for what is uploaded.
        server: What serves the model: auto is this collection's model server, on LiteRT for a model with an edge
            bundle, otherwise on TensorFlow; kfp-hybrid is always LiteRT, kfp-hybrid-tensorflow always TensorFlow; or
            any other name that server_images has.
        server_images: The images of servers, by their names.
        api_endpoint: The address of the Vertex AI API, where it is not the public one of the region.

    Returns:
        deploy: Whether there is anything to deploy.
        upload: What to upload: model (the first of its name), version (of the model model_name), or nothing (the
            registry has this content as model_name).
        source_uri: Where the files of the model are on Cloud Storage; empty for a model of the registry.
        model_name: The resource name of the model in the registry; empty when there is none.
        model_uri: The same as an address.
        endpoint_exists: Whether there is an endpoint of that name.
        endpoint_name: Its resource name; empty when there is none.
        endpoint_uri: The same as an address.
        server_image: The image that serves it; empty for a model of the registry.
        traffic_split: The share of requests by the id of the model on the endpoint; "0" is the new one.
        labels: The labels for what is uploaded, with one that stands for its content.
        summary: What is there and what is missing, in one sentence.
    """
    from kfp_hybrid.components.deployment.plan_vertex_deployment.plan import plan
    from kfp_hybrid.components.deployment.vertex_endpoints import regional_api
    from kfp_hybrid.step import step

    with step():
        api = regional_api(location, api_endpoint)
        parent = f"projects/{project}/locations/{location}"
        return plan(api, parent, model, service, canary_percent, labels, server, server_images)
