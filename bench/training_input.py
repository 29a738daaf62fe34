"""How fast train_model feeds a model, against tf.data's make_csv_dataset and against no input at all.

The built-in model, the batch size and the training loop are the same throughout; only where a batch comes from differs:

    make_csv_dataset     the CSV file, parsed and batched by TensorFlow, preprocessed in the graph
    examples, streamed   the examples artifact, read and preprocessed again in every epoch
    examples, resident   the same, with the preprocessed rows kept in memory (what train_model does if they fit)
    cached batch         one preprocessed batch over and over: the ceiling

Each runs in a fresh process, in turn; the first epoch, in which TensorFlow compiles, does not count.
Usage: python bench/training_input.py [--rows 262144] [--rounds 3]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.csv

from kfp_hybrid.components.training.train_model.training_input import LABEL, ROWS, TrainingInput, preprocess
from kfp_hybrid.data.examples import Examples, ExamplesWriter
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing

INPUTS = {"make_csv_dataset": 3, "examples, streamed": 9, "examples, resident": 9, "cached batch": 9}  # epochs
STEPS_PER_EXECUTION = 16
NUMBERS = [f"number_{i}" for i in range(14)]
CATEGORIES = {"carrier": 16, "origin": 3, "destination": 100, "aircraft": 900, "weather": 8}


def make_data(folder: Path, rows: int) -> None:
    """Write the same rows as CSV and as examples, 20 columns with the label, 5 % of the numbers missing."""
    random = np.random.default_rng(7)
    columns = {}
    for i, name in enumerate(NUMBERS):
        numbers = random.normal(10.0 * i, 3.0, rows).round(0 if i % 2 else 2)
        columns[name] = pa.array(numbers, mask=random.random(rows) < 0.05)
    for name, size in CATEGORIES.items():
        columns[name] = pa.array([f"{name}_{id_}" for id_ in random.zipf(1.3, rows) % size])
    columns["label"] = pa.array((random.random(rows) < 0.3).astype(np.int64))
    table = pa.table(columns)
    pa.csv.write_csv(table, folder / "rows.csv", pa.csv.WriteOptions(quoting_style="none"))
    types = {field.name: str(field.type) for field in table.schema}
    with ExamplesWriter(folder / "examples", types, splits=["train"]) as writer:
        for batch in table.to_batches(65536):
            writer.write("train", batch)
    make_preprocessing(table).save(folder / "preprocessing.json")


def make_preprocessing(table: pa.Table) -> Preprocessing:
    numeric = []
    for name in NUMBERS:
        values = table[name].drop_null().to_numpy()
        deciles = np.unique(np.quantile(values, np.arange(0.1, 1, 0.1)).astype(np.float32))
        mean = float(values.mean())
        numeric.append(Numeric(name, mean, float(values.std()), mean, tuple(deciles.tolist())))
    categorical = [Categorical(n, "string", tuple(sorted(table[n].unique().to_pylist()))) for n in CATEGORIES]
    return Preprocessing("binary", Label("label", (0, 1)), tuple(numeric), tuple(categorical))


class CsvInput:
    """What TrainingInput is to the training loop, on `tf.data.experimental.make_csv_dataset`."""

    def __init__(self, file: Path, rows: int, preprocessing: Preprocessing, batch_size: int):
        self.rows, self.batch_size, self.steps, self.error = rows, batch_size, rows // batch_size, None
        self._file, self._preprocessing = file, preprocessing

    def dataset(self, epoch, replicas, all_replicas):
        import tensorflow as tf

        from kfp_hybrid.components.training.train_model.serving import ServedModel
        from kfp_hybrid.components.training.train_model.wide_and_deep import build_model

        graph = ServedModel(build_model(self._preprocessing, {}), self._preprocessing)

        def core(raw, label):
            return {**graph.preprocess(raw), LABEL: label, ROWS: tf.cast(tf.size(label), tf.float32)}

        batches = tf.data.experimental.make_csv_dataset(
            str(self._file),
            self.batch_size,
            column_defaults=[float("nan")] * len(NUMBERS) + [""] * len(CATEGORIES) + [0],
            label_name="label",
            num_epochs=1,
        )
        batches = batches.map(core, num_parallel_calls=tf.data.AUTOTUNE)
        return batches.batch(STEPS_PER_EXECUTION, drop_remainder=False).prefetch(tf.data.AUTOTUNE)


class CachedInput:
    """What TrainingInput is to the training loop, on one batch."""

    def __init__(self, examples: Examples, preprocessing: Preprocessing, batch_size: int):
        self.rows, self.batch_size, self.error = examples.rows("train"), batch_size, None
        self.steps = self.rows // batch_size
        self._batch = preprocess(next(examples.batches("train", batch_size=batch_size)), preprocessing)

    def dataset(self, epoch, replicas, all_replicas):
        import tensorflow as tf

        batches = tf.data.Dataset.from_tensors({**self._batch, ROWS: np.float32(self.batch_size)})
        return batches.repeat(STEPS_PER_EXECUTION).batch(STEPS_PER_EXECUTION).cache().repeat(self.steps)


def examples_per_second(folder: Path, name: str, batch_size: int) -> float:
    """Train with one of the inputs; the median of the epochs after the first."""
    import tensorflow as tf

    from kfp_hybrid.components.training.train_model.building import make_optimizer
    from kfp_hybrid.components.training.train_model.checkpoints import State
    from kfp_hybrid.components.training.train_model.fitting import Schedule, Trainer
    from kfp_hybrid.components.training.train_model.wide_and_deep import build_model

    if name != "make_csv_dataset":  # a user of make_csv_dataset would not ask for it, and it slows tf.data down
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(1)
    preprocessing = Preprocessing.load(folder / "preprocessing.json")
    examples = Examples.open(folder / "examples")
    if name == "make_csv_dataset":
        source = CsvInput(folder / "rows.csv", examples.rows("train"), preprocessing, batch_size)
    elif name == "cached batch":
        source = CachedInput(examples, preprocessing, batch_size)
    else:
        memory = 1 << 30 if name == "examples, resident" else 24 << 20
        source = TrainingInput(
            examples, "train", preprocessing, batch_size, STEPS_PER_EXECUTION, seed=1, memory_bytes=memory
        )
    model = build_model(preprocessing, {})
    trainer = Trainer(model, make_optimizer(model, 0.001), tf.distribute.get_strategy(), preprocessing, source)
    state = trainer.fit(State(), Schedule(INPUTS[name], patience=0), None, lambda state: None)
    return median(epoch["examples_per_second"] for epoch in state.history[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=262_144)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs=2, metavar=("INPUT", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(examples_per_second(Path(arguments.only[1]), arguments.only[0], arguments.batch_size)))
        return
    rates: dict[str, list[float]] = {name: [] for name in INPUTS}
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder), arguments.rows)
        for _ in range(arguments.rounds):
            for name in INPUTS:
                command = [sys.executable, __file__, "--batch-size", str(arguments.batch_size), "--only", name, folder]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
                rates[name].append(json.loads(output))
    csv, ceiling = median(rates["make_csv_dataset"]), median(rates["cached batch"])
    print(
        f"{arguments.rows:,} rows, 20 columns, batch size {arguments.batch_size}, median of {arguments.rounds} rounds"
    )
    print(f"{'input':20} {'examples/s':>11} {'of make_csv_dataset':>20} {'of cached batch':>16}")
    for name, values in rates.items():
        rate = median(values)
        print(f"{name:20} {rate:11,.0f} {rate / csv:19.1f}x {100 * rate / ceiling:15.0f}%")


if __name__ == "__main__":
    main()
