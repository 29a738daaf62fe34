"""Peak memory and speed of ingest_examples while the input grows, against readers that hold the whole file.

    ingest_examples       reads, checks, splits, and writes the examples artifact
    pandas.read_csv       only reads the file into a data frame
    pyarrow.csv.read_csv  only reads the file into a table

Each runs in a fresh process; the memory is the peak of its resident set, imports included.
Usage: python bench/ingest_memory.py [--rows 1000000] [--factor 5] [--columns 20]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

CHUNK = 100_000
LARGEST_GROWTH = 1.10

PROGRAMS = {
    "ingest_examples": """
from kfp_hybrid.components.data_processing.ingest_examples.ingest import Request, ingest_examples
rows = ingest_examples(sys.argv[2], Request(source=sys.argv[1]))["rows"]
""",
    "pandas.read_csv": """
import pandas
rows = len(pandas.read_csv(sys.argv[1]))
""",
    "pyarrow.csv.read_csv": """
import pyarrow.csv
rows = pyarrow.csv.read_csv(sys.argv[1]).num_rows
""",
}
MEASURE = """
import json, re, sys, time
started = time.monotonic()
{program}
seconds = time.monotonic() - started
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([rows, seconds, peak]))
"""


def write_csv(path: Path, rows: int, columns: int) -> None:
    """Half numbers, half texts; every tenth value is missing, and the last column is different in every row."""
    random = np.random.default_rng(0)
    names = [f"column_{index}" for index in range(columns)]
    texts = np.array([f"value {number:04d}" for number in range(1000)])
    with path.open("wb") as file:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            missing = random.random(count) < 0.1
            values = []
            for index in range(columns - 1):
                kinds = (random.integers(0, 10 ** (1 + index % 6), count), random.normal(0, 100, count).round(2),
                         texts[random.integers(0, 10 ** (1 + index % 3), count)])  # fmt: skip
                values.append(pa.array(kinds[index % 3], mask=missing))
            values.append(pa.array([f"row {number}" for number in range(start, start + count)]))
            table = pa.Table.from_arrays(values, names)
            pyarrow.csv.write_csv(table, file, pyarrow.csv.WriteOptions(include_header=start == 0))


def measure(program: str, source: Path) -> tuple[int, float, float]:
    """Rows, seconds and peak memory in MiB of a fresh process."""
    with tempfile.TemporaryDirectory(dir=source.parent) as output:
        command = [sys.executable, "-c", MEASURE.format(program=program), str(source), f"{output}/examples"]
        result = subprocess.run(command, check=True, capture_output=True, text=True)
    rows, seconds, peak = json.loads(result.stdout)
    return rows, seconds, peak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--factor", type=int, default=5)
    parser.add_argument("--columns", type=int, default=20)
    options = parser.parse_args()
    peaks: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    print(f"{options.columns} columns, {os.cpu_count()} cores")
    print(f"  {'':22s}{'rows':>12s}{'CSV MB':>9s}{'seconds':>9s}{'rows/s':>12s}{'peak MiB':>10s}")
    for rows in (options.rows, options.rows * options.factor):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "rows.csv"
            write_csv(source, rows, options.columns)
            for name, program in PROGRAMS.items():
                read, seconds, peak = measure(program, source)
                assert read == rows
                peaks[name].append(peak)
                size = source.stat().st_size / 1e6
                print(
                    f"  {name:22s}{rows:12,}{size:9,.0f}{seconds:9.1f}{rows / seconds:12,.0f}{peak:10,.0f}", flush=True
                )
    print(f"peak memory from {options.rows:,} to {options.rows * options.factor:,} rows, and against ingest_examples")
    for name, (small, large) in peaks.items():
        print(f"  {name:22s} grows {large / small:5.2f} x   at the end {large / peaks['ingest_examples'][1]:5.1f} x")
    small, large = peaks["ingest_examples"]
    return 0 if large <= LARGEST_GROWTH * small else 1


if __name__ == "__main__":
    sys.exit(main())
