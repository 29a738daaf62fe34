"""Commands for published models and the stores they are in: versions, rollback, sync."""

import click

from kfp_hybrid.storage.command import sync


@click.command()
@click.argument("destination")
def versions(destination: str) -> None:
    """List the versions of models or predictions in DESTINATION; a star marks the one in use."""
    from kfp_hybrid.components.deployment.push_model.publisher import latest_version, list_versions

    published = list_versions(destination)
    if not published:
        click.echo(f"nothing is published in {destination}")
    latest = latest_version(destination)
    for version in published:
        click.echo(f"{'*' if version.number == latest else ' '} {version.number}  {version.created}  {version.path}")


@click.command()
@click.argument("destination")
@click.argument("version", type=int)
def rollback(destination: str, version: int) -> None:
    """Make VERSION the one in use in DESTINATION, after checking its files."""
    from kfp_hybrid.components.deployment.push_model import publisher

    click.echo(f"version {publisher.rollback(destination, version).number} is in use in {destination}")


COMMANDS = (versions, rollback, sync)
