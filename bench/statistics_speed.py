"""How long the statistics of a CSV file take, against TFDV's own function for it.

Every line is a fresh process. `work` leaves out the imports, which are the same for all. The last line is the
component in its usual place, after ingest_examples: it reads the same rows from Parquet.
Usage: python bench/statistics_speed.py [--rows 1000000] [--repeat 3]
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import measured_process
import pyarrow as pa
import statistics_data
from tensorflow_metadata.proto.v0.statistics_pb2 import DatasetFeatureStatisticsList

TFDV, OURS, COMPONENT = "tfdv.generate_statistics_from_csv", "ours, from CSV", "generate_statistics, from Parquet"
SCHEMAS = "schemas"
CHUNK_ROWS = 131_072


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours, whose median counts; TFDV runs once")
    parser.add_argument("--run", nargs=3, metavar=("WHAT", "INPUT", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(RUNS[arguments.run[0]](*map(Path, arguments.run[1:])))
    else:
        compare(arguments.rows, arguments.repeat)


def compare(rows: int, repeat: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        csv = statistics_data.write_csv(Path(folder, "data.csv"), rows)
        examples = statistics_data.write_examples(Path(folder, "examples"), rows)
        print(f"{rows:,} rows, 20 columns, {csv.stat().st_size / 1e6:.0f} MB of CSV\n")
        print(f"{'':36}{'work s':>8}{'ratio':>7}{'start to exit s':>17}{'ratio':>7}{'CPU s':>8}{'peak MB':>9}")
        peer = measure(TFDV, csv, Path(folder, "tfdv"), 1)
        show(TFDV, peer, peer)
        show(OURS, measure(OURS, csv, Path(folder, "ours"), repeat), peer)
        show(COMPONENT, measure(COMPONENT, examples, Path(folder, "component"), repeat), peer)
        command = [sys.executable, __file__, "--run", SCHEMAS, folder + "/tfdv", folder + "/ours"]
        print(f"\nthe inferred schemas are {measured_process.run(command).output}")


def measure(what: str, data: Path, output: Path, repeat: int) -> list[float]:
    """Medians of work seconds, seconds from start to exit, CPU seconds, peak megabytes."""
    command = [sys.executable, __file__, "--run", what, str(data), str(output)]
    runs = [measured_process.run(command) for _ in range(repeat)]
    rows = [(float(run.output.split()[-1]), run.seconds, run.cpu_seconds, run.peak_mb) for run in runs]
    return [statistics.median(column) for column in zip(*rows, strict=True)]


def show(name: str, run: list[float], peer: list[float]) -> None:
    work, seconds, cpu, peak = run
    print(
        f"{name:36}{work:8.2f}{peer[0] / work:6.1f}x{seconds:17.2f}{peer[1] / seconds:6.1f}x{cpu:8.1f}{peak:9.0f}",
        flush=True,
    )


def compare_schemas(one: Path, other: Path) -> str:
    import tensorflow_data_validation as tfdv

    contents = ((path / "stats.pb").read_bytes() for path in (one, other))
    first, second = (tfdv.infer_schema(DatasetFeatureStatisticsList.FromString(content)) for content in contents)
    return "equal" if first == second else "different"


def run_tfdv(csv: Path, output: Path) -> float:
    import tensorflow_data_validation as tfdv

    start = time.monotonic()
    result = tfdv.generate_statistics_from_csv(str(csv))
    seconds = time.monotonic() - start
    save(result, output)
    return seconds


def run_ours(csv: Path, output: Path) -> float:
    from kfp_hybrid.components.data_validation.generate_statistics.options import StatisticsOptions
    from kfp_hybrid.components.data_validation.generate_statistics.parallel import map_in_order
    from kfp_hybrid.components.data_validation.generate_statistics.statistics import PartialStatistics, accumulate
    from kfp_hybrid.data.csv import CsvReader
    from kfp_hybrid.data.reading import with_types
    from kfp_hybrid.data.sources import resolve

    def work(columns: dict[str, str]) -> DatasetFeatureStatisticsList:
        options = StatisticsOptions(string_columns=tuple(name for name in columns if columns[name] == "string"))
        chunks = grouped(chunk.batch for chunk in reader.chunks(columns))
        whole = PartialStatistics(options)
        for part in map_in_order(functools.partial(accumulate, options=options), chunks, processes=2):
            whole.merge(part)
        return DatasetFeatureStatisticsList(datasets=whole.extract("train"))

    start = time.monotonic()
    reader = CsvReader(resolve(str(csv)))
    result = with_types(reader, work)
    seconds = time.monotonic() - start
    save(result, output)
    return seconds


def grouped(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(batch.num_rows for batch in group) >= CHUNK_ROWS:
            yield group
            group = []
    if group:
        yield group


def run_component(examples: Path, output: Path) -> float:
    from kfp_hybrid.components.data_validation.generate_statistics import statistics as _  # noqa: F401 - imports TFDV
    from kfp_hybrid.components.data_validation.generate_statistics.generate import Request, generate_statistics

    return generate_statistics(str(examples), str(output), Request())["seconds"]


def save(result: DatasetFeatureStatisticsList, output: Path) -> None:
    output.mkdir(exist_ok=True)
    (output / "stats.pb").write_bytes(result.SerializeToString())


RUNS = {TFDV: run_tfdv, OURS: run_ours, COMPONENT: run_component, SCHEMAS: compare_schemas}

if __name__ == "__main__":
    main()
