"""How fast predict_batch predicts from Parquet files, against what people write by hand.

The same model (wide and deep, default size), the same flights (drawn from the sample of the package):

    tutorial          TFRecord files, parse_single_example, batches of 1024, the SavedModel: what guides show
    tuned signature   Parquet to Arrow, one batch read ahead, each distinct text into TensorFlow once, Parquet out
    SavedModel        predict_batch with the SavedModel
    edge bundle       predict_batch with the float edge bundle, on LiteRT

Each runs in a fresh process, in turn. "rows/s" counts from the first row read to the last row written, with imports,
loading and one batch to warm up left out; "start to exit" is the whole process. Processor time ("us/row", of all
threads) swings less than the clock on a shared machine.
Usage: kfp-hybrid python tensorflow bench/batch_prediction.py [--rows 2000000] [--tutorial-rows 100000] [--rounds 3]
"""

import argparse
import concurrent.futures
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import measured_process
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

import kfp_hybrid
from kfp_hybrid.components.inference.predict_batch import predict as job
from kfp_hybrid.components.inference.predict_batch.options import Options
from kfp_hybrid.data.examples import Examples, ExamplesWriter
from kfp_hybrid.preprocessing import Categorical, Label, Numeric, Preprocessing

KEY = "flight"
TEXTS = ("carrier", "origin", "dest")
SPLIT = "all"
TUTORIAL_BATCH = 1024
TUNED_BATCH = 16_384
WAYS = ("tutorial", "tuned signature", "SavedModel", "edge bundle")


def make_preprocessing(table: pa.Table) -> Preprocessing:
    numeric, categorical = [], []
    for name in table.column_names:
        values = table[name].drop_null()
        if name in TEXTS:
            categorical.append(Categorical(name, "string", tuple(sorted(values.unique().to_pylist()))))
        elif name not in (KEY, "late"):
            numbers = values.to_numpy().astype(np.float64)
            deciles = np.unique(np.quantile(numbers, np.arange(0.1, 1, 0.1)).astype(np.float32))
            mean = float(numbers.mean())
            numeric.append(Numeric(name, mean, float(numbers.std()), mean, tuple(deciles.tolist())))
    return Preprocessing("binary", Label("late", (0, 1)), tuple(numeric), tuple(categorical))


def make_model(folder: Path, preprocessing: Preprocessing) -> None:
    """Write the SavedModel and the edge bundle of a model with random weights, which cost as much as trained ones."""
    import keras

    from kfp_hybrid.components.deployment.export_tflite.conversion import SourceModel, convert
    from kfp_hybrid.components.training.train_model import serving
    from kfp_hybrid.components.training.train_model.wide_and_deep import build_model
    from kfp_hybrid.edge.bundle import LABELS, MODEL, PREPROCESSING, SAMPLES, write_bundle

    keras.utils.set_random_seed(1)
    (folder / "schema.pbtxt").write_text("")
    serving.export(build_model(preprocessing, {}), preprocessing, folder / "schema.pbtxt", folder / "model")
    SourceModel(folder / "model").freeze(folder / "frozen")
    preprocessing.save(folder / "preprocessing.json")
    labels = {"task": preprocessing.task, "label": preprocessing.label.name, "classes": preprocessing.label.classes}
    files = {
        MODEL: convert(folder / "frozen", "float32", {}),
        PREPROCESSING: (folder / "preprocessing.json").read_bytes(),
        LABELS: json.dumps(labels).encode(),
        SAMPLES: b"{}",
    }
    write_bundle(folder / "bundle", files, quantization="float32")


def make_data(folder: Path, rows: int, tutorial_rows: int) -> None:
    sample = pa.csv.read_csv(Path(kfp_hybrid.__path__[0]) / "samples/flights.csv.gz")
    make_model(folder, make_preprocessing(sample))
    drawn = np.random.default_rng(0).integers(0, sample.num_rows, rows)
    types = {field.name: str(field.type) for field in sample.schema} | {KEY: "int64"}
    with ExamplesWriter(folder / "examples", types, splits=[SPLIT]) as writer:
        for start in range(0, rows, 65_536):
            part = sample.take(drawn[start : start + 65_536])
            part = part.append_column(KEY, pa.array(range(start, start + part.num_rows), pa.int64()))
            writer.write(SPLIT, part.combine_chunks().to_batches()[0])
    write_tfrecord(folder / "rows.tfrecord", sample.take(drawn[:tutorial_rows]))


def write_tfrecord(file: Path, table: pa.Table) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(file)) as writer:
        for row in table.to_pylist():
            features = {}
            for name, value in row.items():
                if name in TEXTS:
                    features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                else:
                    number = float("nan") if value is None else value
                    features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[number]))
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def tutorial(folder: Path) -> dict[str, float]:
    import tensorflow as tf

    preprocessing = Preprocessing.load(folder / "preprocessing.json")
    layout = {feature.name: tf.io.FixedLenFeature([], tf.float32) for feature in preprocessing.numeric}
    layout |= {feature.name: tf.io.FixedLenFeature([], tf.string) for feature in preprocessing.categorical}
    model = tf.saved_model.load(str(folder / "model"))
    serve = model.signatures["serving_default"]
    records = tf.data.TFRecordDataset(str(folder / "rows.tfrecord"))
    parsed = records.map(lambda record: tf.io.parse_single_example(record, layout), num_parallel_calls=tf.data.AUTOTUNE)
    batches = parsed.batch(TUTORIAL_BATCH).prefetch(tf.data.AUTOTUNE)
    for batch in batches.take(1):
        serve(**batch)
    begun = begin()
    scores = [serve(**batch)["scores"].numpy() for batch in batches]
    found = np.concatenate(scores)[:, 0]
    pq.write_table(pa.table({"score": found}), folder / "tutorial.parquet")
    return {"rows": len(found), **ended(begun)}


def tuned_signature(folder: Path) -> dict[str, float]:
    from kfp_hybrid.scoring.saved_model import ServingModel

    model = ServingModel(folder / "model", "model")
    examples = Examples.open(folder / "examples")
    names = [*model.columns, KEY]
    model.raw_scores(next(examples.batches(SPLIT, names, TUNED_BATCH)))
    schema = pa.schema([(KEY, pa.int64()), ("score", pa.float32()), ("predicted", pa.bool_())])
    rows, begun = 0, begin()
    with pq.ParquetWriter(folder / "tuned.parquet", schema) as writer:
        for batch in read_ahead(examples.batches(SPLIT, names, TUNED_BATCH)):
            scores = model.raw_scores(batch)[:, 0]
            columns = [batch.column(KEY), pa.array(scores), pa.array(scores >= 0.5)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema), row_group_size=131_072)
            rows += batch.num_rows
    return {"rows": rows, **ended(begun)}


def read_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = reader.submit(next, batches, None)
            yield batch


def predict_batch(folder: Path, model: Path | None, bundle: Path | None) -> dict[str, float]:
    """The component; measured from the first shard to the last."""
    measured = {}

    def timed(work: job.Work) -> list:
        begun = begin()
        shards = job.finish_side_by_side(work)
        measured.update(ended(begun))
        return shards

    told = job.predict(folder / "examples", model, bundle, folder / "predictions", Options(key_columns=[KEY]), timed)
    return {"rows": told.rows, **measured}


def check(folder: Path) -> None:
    """The scores must be those of the tuned loop."""
    expected = pq.read_table(folder / "tuned.parquet", columns=["score"])["score"].to_numpy()
    files = Examples.open(folder / "predictions").files(SPLIT)
    found = np.concatenate([pq.read_table(file, columns=["score"])["score"].to_numpy() for file in files])
    assert np.abs(found - expected).max() <= 1e-6


def begin() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def ended(begun: tuple[float, float]) -> dict[str, float]:
    return {"seconds": time.perf_counter() - begun[0], "cpu_seconds": time.process_time() - begun[1]}


def one(way: str, folder: Path) -> dict[str, float]:
    if way == "tutorial":
        return tutorial(folder)
    if way == "tuned signature":
        return tuned_signature(folder)
    model, bundle = (folder / "model", None) if way == "SavedModel" else (None, folder / "bundle")
    return predict_batch(folder, model, bundle)


def measure(folder: Path, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Each way in a fresh process, in turn, so that a slow moment of the machine meets all of them."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            process = measured_process.run([sys.executable, __file__, "--only", way, str(folder)])
            found = json.loads(process.output)
            rate, cpu = found["rows"] / found["seconds"], found["cpu_seconds"] / found["rows"] * 1e6
            runs[way].append({"rate": rate, "cpu": cpu, "exit": process.seconds, "peak": process.peak_mb})
            if way in ("SavedModel", "edge bundle"):
                check(folder)
    return runs


def report(runs: dict[str, list[dict[str, float]]]) -> None:
    middle = {way: {key: median(run[key] for run in of_way) for key in of_way[0]} for way, of_way in runs.items()}
    print(f"{'':17}{'rows/s':>11}{'lowest':>11}{'highest':>11}{'us/row':>8}{'start to exit':>15}{'peak MB':>9}")
    for way, of in middle.items():
        rates = [run["rate"] for run in runs[way]]
        print(f"{way:17}{of['rate']:11,.0f}{min(rates):11,.0f}{max(rates):11,.0f}{of['cpu']:8.2f}"
              f"{of['exit']:13.1f} s{of['peak']:9,.0f}")  # fmt: skip
    print("times as many rows/s (in brackets: times less processor time)")
    for way in ("SavedModel", "edge bundle"):
        for peer in ("tutorial", "tuned signature"):
            pairs = zip(runs[way], runs[peer], strict=True)
            ratios = sorted(mine["rate"] / other["rate"] for mine, other in pairs)
            cpu = middle[peer]["cpu"] / middle[way]["cpu"]
            print(
                f"  {way:12} / {peer:16}{median(ratios):7.1f} ({cpu:.1f}); rounds {ratios[0]:.1f} to {ratios[-1]:.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--tutorial-rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs=2, metavar=("WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(one(options.only[0], Path(options.only[1]))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, options.rows, options.tutorial_rows)
        load = os.getloadavg()[0]
        runs = measure(folder, options.rounds)
    print(
        f"{options.rows:,} rows ({options.tutorial_rows:,} for the tutorial), median of {options.rounds} rounds, "
        f"{os.cpu_count()} cores; load of the machine before {load:.1f}"
    )
    report(runs)


if __name__ == "__main__":
    main()
