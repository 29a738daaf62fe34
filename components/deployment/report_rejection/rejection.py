"""Says why a gate stopped a model, so that nobody has to search the logs of the gate for it."""

import html
import logging
from pathlib import Path

from kfp_hybrid.step import StepError

log = logging.getLogger(__name__)


def report(reason: str, gate: str, strict: bool, path: str) -> None:
    """Log the rejection and write it as Markdown.

    Args:
        reason: What the gate said, one sentence.
        gate: The name of the gate.
        strict: Whether a rejection fails the run.
        path: The file to write.

    Raises:
        StepError: when `strict` is set.
    """
    why = " ".join(reason.split()).rstrip(".") or "no reason was given"
    line = f"rejected by {gate.strip() or 'a gate'}: {why}; nothing was pushed"
    Path(path).write_text(f"# Nothing was pushed\n\n{html.escape(line, quote=False)}\n", encoding="utf-8")
    if strict:
        raise StepError(line)
    log.warning(line)
