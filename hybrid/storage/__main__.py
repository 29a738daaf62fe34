"""`python -m kfp_hybrid.storage download URI PATH` and `upload PATH URI`, for init containers and workers."""

import logging
import sys

import click

from kfp_hybrid import storage
from kfp_hybrid.storage.command import sync


@click.group()
def main() -> None:
    """Move files and folders between this machine and object stores."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")


@main.command()
@click.argument("uri")
@click.argument("path")
def download(uri: str, path: str) -> None:
    """Bring the object or folder URI to PATH."""
    click.echo(storage.download(uri, path))


@main.command()
@click.argument("path")
@click.argument("uri")
def upload(path: str, uri: str) -> None:
    """Bring the file or folder PATH to URI."""
    click.echo(storage.upload(path, uri))


main.add_command(sync)

if __name__ == "__main__":
    try:
        main(prog_name="python -m kfp_hybrid.storage")
    except storage.StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
