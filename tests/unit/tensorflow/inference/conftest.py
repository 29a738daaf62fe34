"""Real flights, models of them made as train_model and export_tflite make theirs, and a way to predict."""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

import kfp_hybrid
from kfp_hybrid.components.deployment.export_tflite.conversion import SourceModel, convert
from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.components.inference.predict_batch.predict import Predicted, predict
from kfp_hybrid.components.training.train_model import serving
from kfp_hybrid.components.training.train_model.wide_and_deep import build_model
from kfp_hybrid.data import examples as examples_format
from kfp_hybrid.data.examples import Examples, ExamplesWriter
from kfp_hybrid.edge.bundle import LABELS, MODEL, PREPROCESSING, SAMPLES, write_bundle
from kfp_hybrid.edge.litert import LiteRTModel
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing

NUMBERS = ["dep_delay", "distance", "temp", "wind_dir", "pressure"]
TEXTS = ["carrier", "origin", "dest"]
LABELS_OF = {"binary": Label("late", (0, 1)), "multiclass": Label("origin", ("EWR", "JFK", "LGA")),
             "regression": Label("arr_delay", mean=5.0, std=40.0)}  # fmt: skip
TIME = "2026-01-31T06:00:00Z"


@dataclasses.dataclass
class Model:
    """A Keras model and what was made of it."""

    keras: keras.Model
    preprocessing: Preprocessing
    saved: Path
    bundle: Path


@dataclasses.dataclass
class Prediction:
    """What a job put out."""

    path: Path
    told: Predicted

    @property
    def artifact(self) -> Examples:
        return Examples.open(self.path)

    def table(self, split: str = "eval") -> pa.Table:
        return pa.Table.from_batches(self.artifact.batches(split), self.artifact.schema)

    def files(self) -> dict[str, bytes]:
        """The bytes of all files by their path."""
        found = (path for path in sorted(self.path.rglob("*")) if path.is_file())
        return {str(path.relative_to(self.path)): path.read_bytes() for path in found}


@pytest.fixture(scope="session")
def flights() -> pa.Table:
    """The sample that comes with the package, with a number and a text that belong to a row."""
    table = pa.csv.read_csv(Path(kfp_hybrid.__path__[0]) / "samples/flights.csv.gz")
    count = table.num_rows
    table = table.append_column("id", pa.array(range(count), pa.int64()))
    return table.append_column("note", pa.array([None if i % 7 == 0 else f"Ñ {i} ✈ 東" for i in range(count)]))


def make_preprocessing(table: pa.Table, task: str) -> Preprocessing:
    numeric = []
    for name in NUMBERS:
        values = table[name].drop_null().cast(pa.float64()).to_numpy()
        deciles = np.unique(np.quantile(values, np.arange(0.1, 1, 0.1)).astype(np.float32))
        mean = float(values.mean())
        numeric.append(Numeric(name, mean, float(values.std()), mean, tuple(deciles.tolist())))
    categorical = [Categorical(n, "string", tuple(sorted(table[n].unique().to_pylist())[2:])) for n in TEXTS]
    return Preprocessing(task, LABELS_OF[task], tuple(numeric), tuple(categorical))


@pytest.fixture(scope="session")
def make_model(flights: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Model]:
    """make_model(task): the built-in model with random weights, as SavedModel and as float edge bundle."""

    def make(task: str) -> Model:
        folder = tmp_path_factory.mktemp(task)
        preprocessing = make_preprocessing(flights, task)
        keras.utils.set_random_seed(3)
        model = build_model(preprocessing, {"hidden_units": [16]})
        random = np.random.default_rng(3)
        model.set_weights([weight + random.normal(0, 0.2, weight.shape) for weight in model.get_weights()])
        (folder / "schema.pbtxt").write_text("")
        serving.export(model, preprocessing, folder / "schema.pbtxt", folder / "modèle")
        write_float_bundle(folder, preprocessing, flights.slice(0, 5))
        return Model(model, preprocessing, folder / "modèle", folder / "bundle")

    return make


def write_float_bundle(folder: Path, preprocessing: Preprocessing, rows: pa.Table) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        SourceModel(folder / "modèle").freeze(Path(scratch) / "frozen")
        content = convert(Path(scratch) / "frozen", "float32", {})
    preprocessing.save(folder / "preprocessing.json")
    label = preprocessing.label
    samples = rows.select(preprocessing.features).to_pydict()
    scores = LiteRTModel(content).predict(preprocessing.transform(samples))
    files = {
        MODEL: content,
        PREPROCESSING: (folder / "preprocessing.json").read_bytes(),
        LABELS: json.dumps({"task": preprocessing.task, "label": label.name, "classes": label.classes}).encode(),
        SAMPLES: json.dumps({"rows": samples, "scores": scores.tolist()}).encode(),
    }
    write_bundle(folder / "bundle", files, quantization="float32")


@pytest.fixture(scope="session")
def model(make_model: Callable[[str], Model]) -> Model:
    """A binary classifier."""
    return make_model("binary")


@pytest.fixture(scope="session")
def write_examples(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """write_examples(row_group_rows, eval=table, ...): an examples artifact, by default in row groups of 500 rows."""

    def write(row_group_rows: int = 500, **splits: pa.Table) -> Path:
        path = tmp_path_factory.mktemp("data") / "examples é"
        types = {field.name: str(field.type) for field in next(iter(splits.values())).schema}
        with pytest.MonkeyPatch.context() as patch, ExamplesWriter(path, types, splits=list(splits)) as writer:
            patch.setattr(examples_format, "ROW_GROUP_ROWS", row_group_rows)
            for split, table in splits.items():
                for batch in table.combine_chunks().to_batches():
                    writer.write(split, batch)
        return path

    return write


@pytest.fixture(scope="session")
def examples(flights: pa.Table, write_examples: Callable[..., Path]) -> Path:
    """All flights: 1,000 in train, 5,000 in eval (two files), none in the split empty."""
    return write_examples(train=flights.slice(0, 1000), eval=flights.slice(1000), empty=flights.slice(0, 0))


@pytest.fixture
def predict_with(tmp_path: Path, examples: Path) -> Callable[..., Prediction]:
    """predict_with(model, **options): predict for the flights; rows of 500 make a shard."""

    def run(
        model: Path | None = None, bundle: Path | None = None, data: Path | None = examples, **options: Any
    ) -> Prediction:
        output = Path(tempfile.mkdtemp(dir=tmp_path)) / "predictions"
        given = {"shard_rows": 500, "time": TIME, "workers": 2, **options}
        return Prediction(output, predict(data, model, bundle, output, Options(**given)))

    return run
