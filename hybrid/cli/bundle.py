"""Commands for sites without internet: bundle create, verify, load."""

import re
from pathlib import Path
from typing import Any

import click

from kfp_hybrid.cli.options import FILE, FOLDER, config_option, load_profiles

REGISTRY = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")


def _registry(_: Any, option: click.Parameter, value: str) -> str:
    if not REGISTRY.fullmatch(value):
        raise click.BadParameter(f"{value!r} is no registry; give HOST, HOST:PORT or HOST/PATH, without https://")
    return value


@click.group()
def bundle() -> None:
    """All that a site without internet needs: make it here, check and load it there."""


@bundle.command("create")
@click.option("-o", "--output", "folder", type=FOLDER, required=True, help="The folder of the bundle.")
@click.option("--registry", default="registry.internal:5000", show_default=True, callback=_registry,
              metavar="HOST[/PATH]", help="The registry of the site.")  # fmt: skip
@click.option("--target", default="", metavar="NAME",
              help="A Kubeflow target to write packages for; else that of overlays/airgapped.")  # fmt: skip
@config_option
@click.option("--images-from", default="", metavar="HOST/PATH", help="Where the images of this collection are now.")
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="An extra to bring wheels for, such as demo.")
@click.option("--image-list", "lists", type=FILE, multiple=True,
              help="More images of others, in the form of manifests/images.yaml.")  # fmt: skip
@click.option("--kfp-manifests", type=FOLDER, metavar="DIR",
              help="Bring along Kubeflow Pipelines: what scripts/kfp-manifests.sh wrote, and its images.")  # fmt: skip
@click.option("--without-third-party", is_flag=True, help="Leave out the images of others.")
def create_bundle(folder: Path, registry: str, target: str, config: Path | None, images_from: str,
                  extras: tuple[str, ...], lists: tuple[Path, ...], kfp_manifests: Path | None,
                  without_third_party: bool) -> None:  # fmt: skip
    """Write images, wheels, manifests, packages and their checksums into a folder.

    Run it again after it was stopped: what is there and right is kept.
    """
    from kfp_hybrid import images
    from kfp_hybrid.bundle import checksums
    from kfp_hybrid.bundle.create import Plan, create

    plan = Plan(registry=registry, built_in=images_from or images.REGISTRY, target=target,
                profiles=load_profiles(config), extras=extras, image_lists=lists,
                with_third_party=not without_third_party, kfp_manifests=kfp_manifests)  # fmt: skip
    create(folder, plan, click.echo)
    click.echo(f"{folder} is whole; sha256 of its {checksums.NAME}: {checksums.sha256(folder / checksums.NAME)}")


@bundle.command("verify")
@click.argument("folder", type=FOLDER)
def verify_bundle(folder: Path) -> None:
    """Check every file of the bundle in FOLDER against its checksum."""
    from kfp_hybrid.bundle import checksums
    from kfp_hybrid.bundle.verify import verify

    index = verify(folder)
    click.echo(f"{folder} is as it was made, with {len(index.images)} images for {index.registry}")
    click.echo(f"sha256 of its {checksums.NAME}: {checksums.sha256(folder / checksums.NAME)}")


@bundle.command("load")
@click.argument("folder", type=FOLDER)
@click.option("--registry", required=True, callback=_registry, metavar="HOST[/PATH]", help="The registry of the site.")
@click.option("-o", "--output", type=FOLDER,
              help="A new folder for manifests and packages, if the bundle was made for another registry.")  # fmt: skip
def load_bundle(folder: Path, registry: str, output: Path | None) -> None:
    """Check the bundle in FOLDER, then push its images into the registry of the site."""
    from kfp_hybrid.bundle.load import load

    load(folder, registry, output, click.echo)


COMMANDS = (bundle,)
