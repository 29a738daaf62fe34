"""Commands for this machine: environments, python, serve, demo-data."""

import os
import sys
from pathlib import Path

import click

from kfp_hybrid.cli.options import FILE, cache_folder
from kfp_hybrid.errors import UserError


@click.command()
def environments() -> None:
    """Make the environments of all images now, so that runs need no network."""
    from kfp_hybrid import images
    from kfp_hybrid.targets.local.environments import ensure_environment

    for image in images.names():
        click.echo(f"{image}: {ensure_environment(image, cache_folder(), click.echo)}")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def python(image: str, arguments: tuple[str, ...]) -> None:
    """Start the Python of IMAGE as a step would see it, for instance to debug a component."""
    _become_python(image, *arguments)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option("--image", default="serving", show_default=True, help="tensorflow, for models without an edge bundle.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="MODEL [OPTIONS]")
def serve(image: str, arguments: tuple[str, ...]) -> None:
    """Serve MODEL over HTTP on this machine, as the image does on a cluster; --help shows the server's options."""
    _become_python(image, "-m", "kfp_hybrid.serving", *arguments)


def _become_python(image: str, *arguments: str) -> None:
    """Run the Python of an image in the place of this process.

    Raises:
        UserError: there is no such image, or its environment cannot be made.
    """
    from kfp_hybrid import images
    from kfp_hybrid.targets.local.code import snapshot
    from kfp_hybrid.targets.local.environments import ensure_environment

    if image not in images.names():
        raise UserError(f"there is no image {image}; this collection has: {', '.join(images.names())}")
    interpreter = ensure_environment(image, cache_folder(), click.echo)
    path = [str(snapshot(cache_folder())), os.environ.get("PYTHONPATH", "")]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "_KFP_RUNTIME": "true"}
    sys.stdout.flush()
    os.execve(interpreter, [str(interpreter), *arguments], environ)  # noqa: S606 - that is what it is for


@click.command("demo-data")
@click.argument("file", type=FILE)
def demo_data(file: Path) -> None:
    """Write the demo data, 327,346 flights of 2013, to the CSV file FILE."""
    from kfp_hybrid.demo import write_flights

    try:
        rows, left_out = write_flights(file)
    except ModuleNotFoundError as error:
        raise UserError(str(error)) from None
    click.echo(
        f"wrote {file}: {rows:,} flights ({left_out:,} cancelled or diverted flights have no label and are left out)"
    )


COMMANDS = (environments, python, serve, demo_data)
