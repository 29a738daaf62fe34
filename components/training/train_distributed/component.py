"""The interface of train_distributed."""

from kfp import dsl

from kfp_hybrid import images


@dsl.component(base_image=images.DEPLOYMENT, install_kfp_package=False)
def train_distributed(
    examples: dsl.Input[dsl.Dataset],
    statistics: dsl.Input[dsl.Artifact],
    schema: dsl.Input[dsl.Artifact],
    label: str,
    model: dsl.Output[dsl.Model],
    logs: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    task: str = "auto",
    features: list = [],  # noqa: B006 - kfp copies it into the package
    max_vocabulary: int = 1000,
    module: str = "",
    hyperparameters: dict = {},  # noqa: B006
    train_split: str = "train",
    eval_split: str = "eval",
    epochs: int = 0,
    batch_size: int = 0,
    learning_rate: float = 0.001,
    seed: int = 1,
    early_stopping_patience: int = 3,
    class_weights: dict = {},  # noqa: B006
    mixed_precision: bool = False,
    strategy: str = "none",
    steps_per_execution: int = 16,
    memory_mb: int = 1024,
    checkpoint_dir: str = "",
    nodes: int = 2,
    runtime: str = "kfp-hybrid-tensorflow",
    image: str = "",
    pod: dict = {},  # noqa: B006
    namespace: str = "",
    storage_secret: str = "",
    service_account: str = "",
    timeout_seconds: int = 86400,
) -> None:
    """Trains a Keras model on several machines, with Kubeflow Trainer; otherwise the same as train_model.

    Args:
        examples: The examples to train on.
        statistics: Statistics of the same examples; means, deviations, deciles and vocabularies come from here.
        schema: Schema of the examples; decides which columns are features (those known in the environment SERVING) and
            lists values of categorical ones.
        label: Name of the label column.
        task: binary, multiclass or regression; auto decides by the label. A string label, or an integer label that the
            schema marks as categorical, is classified; so are two neighbouring integers like 0 and 1; any other number
            is a regression.
        features: Names of the features to use; empty for all that are suitable.
        max_vocabulary: A string feature with more distinct values is left out, unless the schema lists its values or
            features names it.
        module: User module with build_model(preprocessing, hyperparameters), as source text, path of a .py file, or
            path in a package ("my_package.my_module"); empty for the built-in wide-and-deep model.
        hyperparameters: Of the built-in model (hidden_units, embedding_dim, activation, dropout, l2, wide), or whatever
            the user module understands.
        train_split: Split to train on.
        eval_split: Split to evaluate on after each epoch; empty for none, and then without early stopping.
        epochs: Most epochs to train; 0 for 10, or as many as make 1,000 steps when there are few rows.
        batch_size: Rows in a batch, over all replicas together; 0 for 16 to 1,024, so that an epoch has 100 steps.
        learning_rate: Learning rate of Adam.
        seed: Seed of weights, order of rows and dropout; the same seed gives the same model.
        early_stopping_patience: Epochs without a lower loss on eval_split before training stops and the weights of the
            best epoch are taken; 0 to train all epochs and take the last weights.
        class_weights: Weight of each class in the loss, such as {"0": 1, "1": 3.5}; {"balanced": true} weighs classes
            by the inverse of their frequency; empty for none.
        mixed_precision: Compute in float16 (GPU) or bfloat16; variables, scores and the served model stay float32.
        strategy: With one node as in train_model: none, mirrored (all devices of the machine) or tpu. Several nodes
            train with multi_worker on all their devices, whether it is named here or not.
        steps_per_execution: Training steps in one call of TensorFlow.
        memory_mb: MiB that preprocessed rows may occupy; rows that need more are read again in each epoch.
        checkpoint_dir: Folder for checkpoints in the pods, from which an interrupted run with the same data and
            parameters goes on; empty for the volume of pod.checkpoint_claim if given, otherwise there are none that
            outlive a pod.
        nodes: Pods that train one model together, each on its own share of every batch.
        runtime: The ClusterTrainingRuntime of Kubeflow Trainer to run in.
        image: Image of the pods; empty for the tensorflow image of this version of kfp-hybrid.
        pod: What each pod gets: resources (limits and requests, such as {"cpu": "8", "nvidia.com/gpu": "1"}),
            node_selector, tolerations (as Kubernetes spells them), pull_secrets (names), env (values), secrets (tables
            with secret, env, path and optional as in a target profile), checkpoint_claim (a PersistentVolumeClaim that
            all nodes can mount) and labels (of the TrainJob, such as the queue of Kueue).
        namespace: Where the TrainJob runs; empty for the namespace of this step.
        storage_secret: Kubernetes secret with the keys accesskey and secretkey for the pods, as Kubeflow Pipelines has
            it; empty when pod.secrets, the runtime or the service account gives them access to the artifacts.
        service_account: Service account of the pods; empty for the default one of the runtime or namespace.
        timeout_seconds: After how long the training is stopped and the step fails; 0 for never.

    Returns:
        model: SavedModel with the signatures serving_default (raw features) and core (preprocessed features).
        logs: TensorBoard logs of the training.
        metrics: Losses and metrics of the published weights, epochs, examples per second, seconds.
    """
    from kfp_hybrid.components.training.train_distributed.launch import Placement, launch
    from kfp_hybrid.components.training.train_model.parameters import Parameters
    from kfp_hybrid.step import step

    with step():
        arguments = locals()
        trained = launch(
            {"examples": examples.uri, "statistics": statistics.uri, "schema": schema.uri},
            Parameters.of(arguments),
            Placement.of(arguments),
            model,
            logs,
        )
        model.metadata.update(trained.metadata)
        for name, value in trained.metrics.items():
            metrics.log_metric(name, value)
