"""Checks a bundle before anything of it is used."""

from pathlib import Path

from kfp_hybrid.bundle import checksums
from kfp_hybrid.bundle.checksums import files_below, parse, sha256
from kfp_hybrid.bundle.index import NAME, Index
from kfp_hybrid.bundle.writer import LOCK
from kfp_hybrid.errors import UserError

SHOWN = 5


def verify(folder: Path) -> Index:
    """Check every file of a bundle against its checksum, and return the index.

    Raises:
        UserError: a file is damaged, truncated, missing or surplus; its name is in the message.
    """
    file = folder / checksums.NAME
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no {checksums.NAME}: it is no bundle, or not finished; run create again"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not text; copy it again") from None
    try:
        faults = _faults(folder, parse(text, str(file)))
    except OSError as error:
        raise UserError(f"cannot read {error.filename or folder}: {error.strerror}; copy it again") from None
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise UserError(f"{folder} is not as it was made: {'; '.join(faults[:SHOWN])}{more}; copy it again")
    return Index.read(folder)


def _faults(folder: Path, expected: dict[str, str]) -> list[str]:
    there = set(files_below(folder)) - {checksums.NAME, LOCK}
    faults = [f"{name} is missing" for name in sorted({*expected, NAME} - there)]
    faults += [f"{name} is surplus" for name in sorted(there - set(expected))]
    damaged = (name for name in sorted(there & set(expected)) if sha256(folder / name) != expected[name])
    return faults + [f"{name} is damaged or truncated" for name in damaged]
