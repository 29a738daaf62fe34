"""A file that tells whoever started the server at which port it listens."""

from pathlib import Path

from kfp_hybrid.errors import UserError


def write_port(file: Path, port: int) -> None:
    """Write the file as a whole or not at all: whoever waits for it reads it at once.

    Raises:
        UserError: it cannot be written.
    """
    unfinished = file.with_name(f".{file.name}.{port}")
    try:
        unfinished.write_text(f"{port}\n", encoding="ascii")
        unfinished.replace(file)
    except OSError as error:
        raise UserError(f"cannot write the port file {file}: {error.strerror}") from None
