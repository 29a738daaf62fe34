"""The interface of deploy_model."""

from typing import NamedTuple, Optional

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def deploy_model(
    service: str,
    model: Optional[dsl.Input[dsl.Model]] = None,  # noqa: UP045 - kfp knows no other spelling
    action: str = "deploy",
    canary_percent: int = 100,
    serving: str = "kserve",
    server: str = "auto",
    namespace: str = "",
    storage_uri: str = "",
    storage_secret: str = "",
    service_account: str = "",
    model_format: str = "",
    runtime: str = "",
    image: str = "",
    server_images: dict = {},  # noqa: B006 - kfp copies it into the package
    download_image: str = "",
    pull_secrets: list[str] = [],  # noqa: B006
    min_replicas: int = 1,
    max_replicas: int = 0,
    resources: dict = {},  # noqa: B006
    node_selector: dict = {},  # noqa: B006
    tolerations: list = [],  # noqa: B006
    annotations: dict = {},  # noqa: B006
    force: bool = False,
    timeout_seconds: int = 900,
    run: str = "",
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [("url", str), ("revision", str), ("storage_uri", str), ("changed", bool), ("summary", str)],
):
    """Serve a published model on Kubernetes: with KServe, or with a plain Deployment where there is no KServe.

    Deploys a model, all at once or as a canary that gets a share of the requests; promotes a canary; rolls back to the
    model before. Waits until the new model answers, and says why when it does not. Deploying the same model with the
    same settings again changes nothing.

    Args:
        service: The name of the service: lower-case letters, digits and dashes, at most 45 characters.
        model: The model to deploy: what push_model put out, or an imported model. Not needed to promote or to roll
            back, nor when storage_uri is given.
        action: deploy, promote (give the newest model all requests) or rollback (give them to the model before).
        canary_percent: The share of requests for the new model, 1 to 100; the rest goes to the model before it. The
            first model of a service gets all of them. KServe splits requests only on Knative; a plain Deployment splits
            them by the number of pods.
        serving: kserve (an InferenceService), or deployment (a Deployment and a Service of plain Kubernetes).
        server: What runs in the pods. auto is this collection's model server, which validate_serving tries: on LiteRT
            for a model with an edge bundle, such as what push_model puts out, otherwise on TensorFlow. kfp-hybrid is
            always LiteRT, kfp-hybrid-tensorflow always TensorFlow; tensorflow-serving is that of others.
        namespace: The namespace to serve in. Empty takes the one this step runs in.
        storage_uri: Where the model is, instead of an artifact: s3://, minio://, gs://, https:// or pvc://CLAIM/PATH;
            either one version (its last part is a number), or the folder of versions for TensorFlow Serving to take the
            highest from.
        storage_secret: The name of the Kubernetes secret with the storage credentials, in the service's namespace:
            AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and where the endpoint is not Amazon's, its address (see the
            component's page). Empty for public storage, volumes, and identities of the service account.
        service_account: The service account of the serving pods, for storage access by workload identity. Empty takes
            one made for storage_secret, or the namespace's default.
        model_format: KServe's name of the model's format, by which it chooses one of the runtimes of the cluster, such
            as kfp-hybrid or kfp-hybrid-tensorflow of manifests/serving. Empty takes that of the server.
        runtime: The KServe ServingRuntime to use, which must be there. Empty takes one that this step makes for the
            model server, and leaves the choice to KServe for others.
        image: The server's image, for serving=deployment and for the runtime that this step makes.
        server_images: The same by server, where your cluster has them under other names: {"kfp-hybrid": ...,
            "kfp-hybrid-tensorflow": ...}. What is missing is this collection's serving, its tensorflow, or
            tensorflow/serving of Docker Hub.
        download_image: This collection's image deployment, which copies the model into the pods for serving=deployment,
            where your cluster has it under another name.
        pull_secrets: The names of the Kubernetes secrets with which the images of the serving pods are pulled.
        min_replicas: The least number of serving pods; 0 lets Knative stop the last one while nobody asks. It is the
            number of pods for serving=deployment.
        max_replicas: The greatest number of serving pods with KServe. 0 leaves it to KServe.
        resources: Requests and limits of the server's container as Kubernetes spells them, such as {"requests": {"cpu":
            "1"}, "limits": {"memory": "2Gi", "nvidia.com/gpu": "1"}}. Empty takes the runtime's; 1 CPU and 2Gi for
            serving=deployment.
        node_selector: Labels that the nodes of the serving pods must have.
        tolerations: Taints that the serving pods tolerate, as Kubernetes spells them.
        annotations: More annotations for the InferenceService or the serving pods, such as
            {"serving.kserve.io/deploymentMode": "RawDeployment"}.
        force: Take over fields that somebody else has set, instead of failing with that manager's name.
        timeout_seconds: How long to wait until the new model answers.
        run: What to note as the origin of the deployment, such as the run's id.

    Returns:
        url: The address of the service.
        revision: The revision that got the requests, or the share of them.
        storage_uri: Where its model is.
        changed: Whether anything was changed; False when everything was as asked for already.
        summary: What was done, in one sentence.
    """
    from kfp_hybrid.components.deployment.deploy_model.deploy import Request, run_action
    from kfp_hybrid.step import step

    with step():
        request = Request(
            service=service,
            action=action,
            canary_percent=canary_percent,
            serving=serving,
            server=server,
            namespace=namespace,
            storage_uri=storage_uri,
            storage_secret=storage_secret,
            service_account=service_account,
            model_format=model_format,
            runtime=runtime,
            image=image,
            server_images=server_images,
            download_image=download_image,
            pull_secrets=pull_secrets,
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            resources=resources,
            node_selector=node_selector,
            tolerations=tolerations,
            annotations=annotations,
            force=force,
            timeout_seconds=timeout_seconds,
            run=run,
        )
        return run_action(request, model)
