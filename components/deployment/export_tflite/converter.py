"""Runs the conversion in a process of its own, and again without the variant that brought it down."""

import dataclasses
import logging
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from kfp_hybrid.components.deployment.export_tflite import conversion
from kfp_hybrid.components.deployment.export_tflite.conversion import Job
from kfp_hybrid.step import StepError


@dataclasses.dataclass(frozen=True)
class Conversion:
    """The results of a job.

    Attributes:
        reference: the SavedModel's scores on the sample, float32 [N, outputs].
        variants: quantization -> TFLite file, of those that could be made.
        failures: quantization -> why it could not be made.
    """

    reference: np.ndarray
    variants: dict[str, bytes]
    failures: dict[str, str]


def run_conversion(job: Job) -> Conversion:
    """Do a job in processes of their own and collect its results.

    Raises:
        StepError: the model or the examples cannot be used, or not one variant could be made.
    """
    crashes: dict[str, str] = {}
    remaining = job.quantizations
    while remaining:
        end = _run_process(dataclasses.replace(job, quantizations=remaining))
        if job.mistake.exists():
            raise StepError(job.mistake.read_text(encoding="utf-8"))
        remaining = tuple(q for q in remaining if not (job.variant(q).exists() or job.failure(q).exists()))
        if remaining and not job.reference.exists():
            raise StepError(f"TensorFlow could not score the sample, it {end}")
        if remaining:
            crashes[remaining[0]] = f"the converter {end}"
            remaining = remaining[1:]
    variants = {q: job.variant(q).read_bytes() for q in job.quantizations if job.variant(q).exists()}
    texts = {q: job.failure(q).read_text(encoding="utf-8") for q in job.quantizations if job.failure(q).exists()}
    failures = texts | crashes
    if not variants:
        raise StepError(f"no variant could be made: {'; '.join(f'{q}: {why}' for q, why in failures.items())}")
    return Conversion(np.load(job.reference), variants, failures)


def _run_process(job: Job) -> str:
    """Run one process to its end and say how it ended; what TensorFlow prints is logged at debug."""
    log = Path(job.folder) / "tensorflow.log"
    command = [sys.executable, "-m", conversion.__name__, str(job.save())]
    with log.open("wb") as noise:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise, text=True, errors="replace")
        try:
            assert process.stdout is not None
            for line in process.stdout:
                logging.info("%s", line.rstrip())
            status = process.wait()
        finally:
            process.kill()  # does nothing after its end; the step itself may have been told to stop
            process.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        logging.debug("tensorflow: %s", line)
    return _describe_end(status, lines)


def _describe_end(status: int, lines: list[str]) -> str:
    last = next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no output")
    if status >= 0:
        return f"ended with status {status}: {last}"
    return f"crashed ({signal.Signals(-status).name}), its last words: {last}"
