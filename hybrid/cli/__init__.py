"""The command line: `kfp-hybrid`. Each module holds the commands of one job; none imports what it does not need."""

import logging
from typing import Any

import click

from kfp_hybrid import __version__
from kfp_hybrid.cli import authoring, bundle, catalogue, doctor, local, models, predict, runs
from kfp_hybrid.errors import UserError


class Commands(click.Group):
    """Commands whose user errors are one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise click.ClickException(str(error)) from None


class Plain(logging.Formatter):
    """One line that looks like the command line's errors."""

    def format(self, record: logging.LogRecord) -> str:
        """Show the level and the message."""
        return f"{record.levelname.lower()}: {super().format(record)}"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kfp-hybrid")
def main() -> None:
    """TensorFlow pipelines that run on this machine, on Kubeflow and on Vertex AI."""
    handler = logging.StreamHandler()
    handler.setFormatter(Plain())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


for module in (authoring, runs, catalogue, doctor, predict, models, local, bundle):
    for command in module.COMMANDS:
        main.add_command(command)
