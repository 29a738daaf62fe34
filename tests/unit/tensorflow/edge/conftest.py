"""A small model with the two signatures of train_model, its examples, and one export of it for all tests."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kfp_hybrid.components.deployment.export_tflite.conversion import SourceModel
from kfp_hybrid.components.deployment.export_tflite.export import export_tflite
from kfp_hybrid.components.deployment.export_tflite.quantization import convert
from kfp_hybrid.components.deployment.export_tflite.request import DEFAULT_LIMITS
from kfp_hybrid.components.deployment.export_tflite.variants import Sample, Variant, measure_variants
from kfp_hybrid.data.examples import Examples, ExamplesWriter, arrow_schema
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing

CARRIERS = ("UA", "AA", "Ö 9", "東")
PARAMETERS = {
    "quantizations": ["float32", "dynamic_range", "float16", "int8", "aeq_weight_only", "aeq_int8"],
    "select": "smallest",
    "split": "eval",
    "sample_rows": 1500,
    "calibration_split": "train",
    "calibration_rows": 500,
    "max_mean_difference": {},
    "max_flip_fraction": {},
    "max_metric_drop": {},
    "min_agreement": 0.0,
    "min_correlation": 0.95,
    "max_latency_ms": 0.0,
    "max_size_bytes": 0,
    "label": "",
    "task": "auto",
    "classes": [],
}


COLUMNS = {"temp": "double", "wind_speed": "double", "delay": "double", "carrier": "string", "weekday": "int64"}


@dataclasses.dataclass
class Artifact:
    """What the step uses of a KFP artifact."""

    path: str
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def log_metric(self, name: str, value: float) -> None:
        self.metadata[name] = value


@dataclasses.dataclass
class Exported:
    """One run of the step."""

    accepted: bool
    reason: str
    bundle: Artifact
    metrics: Artifact
    report: Path


def make_rows(rows: int, seed: int) -> dict[str, list[Any]]:
    """Raw rows with missing values, unknown carriers and integers held as text."""
    rng = np.random.default_rng(seed)
    numbers = {name: rng.normal(40, 25, rows).round(2).tolist() for name in ("temp", "wind_speed", "delay")}
    for values in numbers.values():
        for row in rng.choice(rows, rows // 10, replace=False):
            values[row] = None
    carriers = rng.choice([*CARRIERS, "unknown", None], rows).tolist()
    weekdays = rng.choice([0, 1, 2, 3, 4, 5, 6, None], rows).tolist()
    return {**numbers, "carrier": carriers, "weekday": weekdays}


def make_preprocessing(task: str = "binary") -> Preprocessing:
    classes = {"binary": ("no", "yes"), "multiclass": ("low", "middle", "high"), "regression": ()}[task]
    numeric = tuple(Numeric(n, 40.0, 25.0, 41.5, (10.0, 30.0, 50.0, 70.0)) for n in ("temp", "wind_speed", "delay"))
    categorical = (Categorical("carrier", "string", CARRIERS), Categorical("weekday", "int", tuple("0123456")))
    return Preprocessing(task, Label("late", classes), numeric, categorical)


def save_model(
    path: Path, preprocessing: Preprocessing, hidden: int = 256, core_layer: Any = None, numeric_only: bool = False
) -> Path:
    """Write an untrained model with `serving_default` (lookup tables inside) and `core`.

    Args:
        path: SavedModel directory.
        preprocessing: its constants.
        hidden: width of the hidden layer.
        core_layer: function from the numeric input to float32 [N, 1], added to the logits of `core`.
        numeric_only: ignore the inputs "bucket" and "categorical".
    """
    import tensorflow as tf

    rng = np.random.default_rng(7)
    features = len(preprocessing.numeric)
    outputs = preprocessing.outputs
    width = features + 4 * len(preprocessing.categorical)

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = [c.ids for c in preprocessing.categorical]
            self.offsets = tf.constant(np.cumsum([0, *sizes[:-1]]), tf.int32)
            self.embeddings = tf.Variable(rng.normal(0, 1, (sum(sizes), 4)), dtype=tf.float32)
            self.wide = tf.Variable(rng.normal(0, 0.3, (preprocessing.numeric[0].buckets, outputs)), dtype=tf.float32)
            self.hidden = tf.Variable(rng.normal(0, 1 / width**0.5, (width, hidden)), dtype=tf.float32)
            self.output = tf.Variable(rng.normal(0, 4 / hidden**0.5, (hidden, outputs)), dtype=tf.float32)
            self.tables = [
                tf.lookup.StaticHashTable(
                    tf.lookup.KeyValueTensorInitializer(["", *c.vocabulary], [0, *range(2, c.ids)]), default_value=1
                )
                for c in preprocessing.categorical
            ]

        def scores(self, numeric: Any, bucket: Any, categorical: Any) -> Any:
            if numeric_only:
                bucket, categorical = tf.zeros_like(numeric, tf.int32), tf.zeros_like(numeric[:, :2], tf.int32)
            ids = tf.nn.bias_add(categorical, self.offsets)  # as Keras adds a vector
            embedded = tf.reshape(tf.gather(self.embeddings, ids), [-1, width - features])
            hidden = tf.nn.relu(tf.matmul(tf.concat([numeric, embedded], axis=1), self.hidden))
            logits = tf.matmul(hidden, self.output) + tf.gather(self.wide, bucket[:, 0])
            if core_layer is not None:
                logits += core_layer(numeric)
            activation = {"binary": tf.sigmoid, "multiclass": tf.nn.softmax, "regression": tf.identity}
            return {"scores": activation[preprocessing.task](logits)}

        def serve(self, **raw: Any) -> Any:
            numeric, bucket = [], []
            for f in preprocessing.numeric:
                missing = tf.math.is_nan(raw[f.name])
                numeric.append((tf.where(missing, f.missing, raw[f.name]) - f.mean) / f.std)
                found = tf.searchsorted(tf.constant(f.boundaries, tf.float32), raw[f.name], side="right")
                bucket.append(tf.where(missing, 0, found + 1))
            ids = [table.lookup(raw[f.name]) for f, table in zip(preprocessing.categorical, self.tables)]
            return self.scores(tf.stack(numeric, 1), tf.stack(bucket, 1), tf.stack(ids, 1))

    model = Model()
    serve = tf.function(model.serve).get_concrete_function(
        **{f.name: tf.TensorSpec([None], tf.float32, f.name) for f in preprocessing.numeric},
        **{f.name: tf.TensorSpec([None], tf.string, f.name) for f in preprocessing.categorical},
    )
    core = tf.function(model.scores).get_concrete_function(
        tf.TensorSpec([None, features], tf.float32, "numeric"),
        tf.TensorSpec([None, features], tf.int32, "bucket"),
        tf.TensorSpec([None, len(preprocessing.categorical)], tf.int32, "categorical"),
    )
    tf.saved_model.save(model, str(path), {"serving_default": serve, "core": core})
    (path / "assets.extra").mkdir()
    preprocessing.save(path / "assets.extra" / "preprocessing.json")
    return path


def serving_scores(path: Path, preprocessing: Preprocessing, rows: dict[str, list[Any]]) -> np.ndarray:
    """The scores of `serving_default` for raw rows."""
    import tensorflow as tf

    inputs = {name: tf.constant(values) for name, values in preprocessing.serving_inputs(rows).items()}
    return tf.saved_model.load(str(path)).signatures["serving_default"](**inputs)["scores"].numpy()


def save_examples(path: Path, rows: dict[str, dict[str, list[Any]]], columns: dict[str, str]) -> Path:
    with ExamplesWriter(path, columns, splits=list(rows)) as writer:
        for split, values in rows.items():
            writer.write(split, pa.RecordBatch.from_pydict(values, schema=arrow_schema(columns)))
    return path


def label_rows(rows: dict[str, list[Any]], model: Path, preprocessing: Preprocessing) -> dict[str, list[Any]]:
    """The rows with labels as the model would have them, drawn by its probabilities; a few are missing."""
    scores = serving_scores(model, preprocessing, rows)
    rng = np.random.default_rng(3)
    if preprocessing.task == "regression":
        labels: list[Any] = (scores[:, 0] + rng.normal(0, 0.5, len(scores))).tolist()
    else:
        shares = np.hstack([1 - scores, scores]) if preprocessing.task == "binary" else scores
        drawn = (shares.cumsum(axis=1) < rng.random((len(shares), 1))).sum(axis=1)
        labels = [preprocessing.label.classes[index] for index in drawn]
    return {**rows, "late": [None, None, *labels[2:]]}


@dataclasses.dataclass
class Case:
    """A model with its examples."""

    folder: Path
    model: Path
    examples: Path
    preprocessing: Preprocessing | None = None

    def export(self, fail_if_rejected: bool = False, **changes: Any) -> Exported:
        """Run the step."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        bundle, metrics = Artifact(str(folder / "bundle")), Artifact(str(folder / "metrics"))
        accepted, reason = export_tflite(
            self.model,
            self.examples,
            bundle=bundle,
            metrics=metrics,
            report=folder / "report.html",
            fail_if_rejected=fail_if_rejected,
            **PARAMETERS | changes,
        )
        return Exported(accepted, reason, bundle, metrics, folder / "report.html")

    def rows(self, count: int, seed: int = 11) -> dict[str, list[Any]]:
        """Raw rows that are not among the examples."""
        return make_rows(count, seed)

    def scores(self, rows: dict[str, list[Any]]) -> np.ndarray:
        """The SavedModel's scores."""
        assert self.preprocessing is not None
        return serving_scores(self.model, self.preprocessing, rows)


@dataclasses.dataclass
class Bench:
    """The model as the converter takes it, and the sample that variants are compared on."""

    frozen: Path
    calibration: dict[str, np.ndarray]
    sample: Sample
    float32: bytes

    def measure(self, model: bytes, name: str = "int8") -> Variant:
        (variant,) = measure_variants({name: model}, self.sample, DEFAULT_LIMITS)
        return variant


@pytest.fixture(scope="session")
def make_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """make_case(task, **options of save_model): a model with the signatures of train_model, and examples."""

    def make(task: str, **options: Any) -> Case:
        folder = tmp_path_factory.mktemp(task)
        preprocessing = make_preprocessing(task)
        model = save_model(folder / "model", preprocessing, **options)
        splits = {
            name: label_rows(make_rows(rows, seed), model, preprocessing)
            for seed, (name, rows) in enumerate({"train": 600, "eval": 2000}.items())
        }
        splits["empty"] = {name: [] for name in splits["train"]}
        label = "double" if task == "regression" else "string"
        examples = save_examples(folder / "examples", splits, COLUMNS | {"late": label})
        return Case(folder, model, examples, preprocessing)

    return make


@pytest.fixture(scope="session")
def make_plain_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Case]:
    """make_plain_case(function, columns): a model of somebody else, with `serving_default` only, and examples.

    The function gets one tensor [None] for each column; columns maps names to the type of the input; resources are
    what the function needs beyond them.
    """

    def make(function: Callable[..., Any], columns: dict[str, str], *resources: Any) -> Case:
        import tensorflow as tf

        folder = tmp_path_factory.mktemp("plain")
        module = tf.Module()
        module.resources = resources
        module.serve = tf.function(lambda **inputs: {"prediction": function(**inputs)})
        specs = {name: tf.TensorSpec([None], dtype, name) for name, dtype in columns.items()}
        signature = module.serve.get_concrete_function(**specs)
        tf.saved_model.save(module, str(folder / "model"), {"serving_default": signature})
        rng = np.random.default_rng(5)
        values = {name: rng.integers(0, 9, 500).tolist() for name in (*columns, "y")}
        if "string" in columns.values():
            values = {name: list(map(str, numbers)) for name, numbers in values.items()}
        types = dict.fromkeys(values, "string" if "string" in columns.values() else "int64")
        examples = save_examples(folder / "examples", {"train": values, "eval": values}, types)
        return Case(folder, folder / "model", examples)

    return make


@pytest.fixture(scope="session")
def parameters() -> dict[str, Any]:
    """Parameters of the step that suit the small examples; otherwise its defaults."""
    return PARAMETERS


@pytest.fixture(scope="session")
def case(make_case: Callable[..., Case]) -> Case:
    """A binary classifier."""
    return make_case("binary")


@pytest.fixture(scope="session")
def exported(case: Case) -> Exported:
    """The classifier, exported with the default parameters."""
    return case.export()


@pytest.fixture(scope="session")
def bench(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The classifier, converted to float32."""
    frozen = tmp_path_factory.mktemp("frozen")
    examples, source = Examples.open(case.examples), SourceModel(case.model)
    source.freeze(frozen)
    reference = source.sample_scores(examples, "eval", 1500)
    sample = Sample(source.inputs(examples, "eval", 1500), reference, "binary", None)
    return Bench(frozen, source.inputs(examples, "train", 500), sample, convert(frozen, "float32", {}))
