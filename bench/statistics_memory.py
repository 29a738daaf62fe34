"""How much more memory the statistics of five times the rows take.

Runs generate_statistics on the same kind of data in two sizes, each in a fresh process, and samples the resident
memory of that process and its workers together.
Usage: python bench/statistics_memory.py [--rows 1000000] [--times 5] [--processes 0]
"""

import argparse
import sys
import tempfile
from pathlib import Path

import measured_process
import statistics_data

PROGRAM = """
import sys
from kfp_hybrid.components.data_validation.generate_statistics.generate import Request, generate_statistics
print(generate_statistics(sys.argv[1], sys.argv[2], Request(processes=int(sys.argv[3])))["seconds"])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--processes", type=int, default=0, help="0: one per CPU")
    arguments = parser.parse_args()
    peaks = []
    print(f"{'rows':>12}{'peak MB':>10}{'seconds':>10}{'CPU s':>8}")
    for rows in (arguments.rows, arguments.rows * arguments.times):
        with tempfile.TemporaryDirectory() as folder:
            examples = statistics_data.write_examples(Path(folder, "examples"), rows)
            command = [sys.executable, "-c", PROGRAM, str(examples), folder + "/out", str(arguments.processes)]
            run = measured_process.run(command)
        peaks.append(run.peak_mb)
        print(f"{rows:12,}{run.peak_mb:10.0f}{run.seconds:10.1f}{run.cpu_seconds:8.1f}", flush=True)
    print(f"\n{arguments.times} times the rows take {100 * (peaks[1] / peaks[0] - 1):+.1f} % memory")


if __name__ == "__main__":
    main()
