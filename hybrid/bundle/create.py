"""Makes a bundle."""

import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kfp_hybrid import __version__, images
from kfp_hybrid.bundle import contents, third_party
from kfp_hybrid.bundle.docker import Docker
from kfp_hybrid.bundle.index import KUBEFLOW_PIPELINES, Image, Index
from kfp_hybrid.bundle.third_party import ThirdParty
from kfp_hybrid.bundle.writer import Writer, writing
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import KubeflowProfile, Profiles


@dataclass(frozen=True)
class Plan:
    """What is wanted of a bundle.

    Attributes:
        registry: The registry of the site: a host, with a folder or not.
        built_in: Where our images are now: the registry and folder before their names.
        target: A Kubeflow target of `profiles` that the packages are for; empty: that of overlays/airgapped.
        profiles: Where `target` is.
        extras: The extras of this package that the site installs too.
        image_lists: Lists of images of others, besides manifests/images.yaml.
        with_third_party: Whether images of others come along.
        kfp_manifests: The manifests of Kubeflow Pipelines, as scripts/kfp-manifests.sh writes them; None to leave them
            and its images out.
    """

    registry: str = contents.SITE
    built_in: str = images.REGISTRY
    target: str = ""
    profiles: Profiles | None = None
    extras: tuple[str, ...] = ()
    image_lists: tuple[Path, ...] = ()
    with_third_party: bool = True
    kfp_manifests: Path | None = None


def create(folder: Path, plan: Plan, say: Callable[[str], None]) -> None:
    """Make a bundle, or go on with one that was stopped; what is there and right is not made again.

    Args:
        folder: Where; a new folder, or that of a bundle.
        plan: What is wanted.
        say: Is told what was written.

    Raises:
        UserError: an image cannot be had, or something cannot be written; run it again when that is put right.
    """
    kfp, lists = plan.kfp_manifests, contents.repository() / "manifests"
    kfp_lists = [lists / "kind" / "images.yaml"] if kfp else []
    others = third_party.read_all([lists / "images.yaml", *kfp_lists, *plan.image_lists])
    docker = Docker()
    python = "{}.{}".format(*sys.version_info)
    index = Index(version=__version__, registry=plan.registry, python=python, platform=sysconfig.get_platform())
    with writing(folder, index, say) as writer:
        writer.add("manifests", "", lambda path: contents.write_manifests(path, plan.registry, others))
        if kfp:
            writer.add(
                KUBEFLOW_PIPELINES,
                "",
                lambda path: contents.write_kubeflow_pipelines(path, kfp, plan.registry, others),
            )
        name, profile, loaded = _site(folder, plan)
        profile = contents.in_registry(profile, plan.registry, others)
        writer.add("packages", "", lambda path: contents.write_packages(path, name, profile, loaded))
        ours = contents.our_images(folder / "packages", profile)
        wanted = others if plan.with_third_party else []
        # An image that cannot be had is better said before gigabytes are written.
        for path in ours:
            _get_ours(docker, path, plan.built_in)
        for other in wanted:
            _get_other(docker, other)
        index.images += [_add_ours(writer, docker, path, plan.built_in) for path in ours]
        index.images += [_add_other(writer, docker, other, say) for other in wanted]
        source = contents.wheels_source(plan.extras)
        writer.add("wheels", source, lambda path: contents.write_wheels(path, plan.extras))


def _site(folder: Path, plan: Plan) -> tuple[str, KubeflowProfile, Profiles]:
    """The target that the packages are for: its name, its profile and the file that it is from."""
    loaded = plan.profiles if plan.target and plan.profiles else contents.site_profiles(folder / "manifests")
    name = plan.target or next(name for name, found in loaded.targets.items() if isinstance(found, KubeflowProfile))
    profile = loaded.target(name)
    if not isinstance(profile, KubeflowProfile):
        raise UserError(f"{name} is no Kubeflow target; a bundle is for one, so name another with --target")
    return name, profile, loaded


def _get_ours(docker: Docker, path: str, registry: str) -> None:
    """See to it that an image of this collection is on this machine."""
    reference, name, tag = _named(path, registry)
    if docker.identity(reference) is None:
        try:
            docker.pull(reference)
        except UserError as error:
            variant = images.GPU if tag.endswith(images.GPU) else ""  # which scripts/images.sh calls it by, too
            raise UserError(f"{error}; build it: scripts/images.sh build {name}{variant}") from None


def _add_ours(writer: Writer, docker: Docker, path: str, registry: str) -> Image:
    """An image of this collection, and the list of what is in it."""
    reference, name, tag = _named(path, registry)
    source = f"{reference} {docker.identity(reference)}"
    file = f"images/{name}-{tag}.tar"
    writer.add(file, source, lambda to: docker.save(reference, to))
    program = (contents.repository() / "scripts" / "image_sbom.py").read_text("utf-8")

    def write_sbom(to: Path) -> None:
        to.write_text(docker.run(reference, program, reference), "utf-8")

    writer.add(f"sbom/{name}-{tag}.cdx.json", source, write_sbom)
    return Image(file=file, reference=reference, path=path)


def _named(path: str, registry: str) -> tuple[str, str, str]:
    """What an image of this collection is called now, its name and its tag."""
    tagged = path.rpartition("/")[2]
    name, _, tag = tagged.partition(":")
    return f"{registry}/{tagged}", name, tag


def _get_other(docker: Docker, other: ThirdParty) -> None:
    """Pull an image of somebody else, by the digest of the list where there is one."""
    if other.digest or docker.identity(other.reference) is None:
        try:
            docker.pull(other.reference, other.digest)
        except UserError as error:
            raise UserError(f"{error}; without the images of others: --without-third-party") from None


def _add_other(writer: Writer, docker: Docker, other: ThirdParty, say: Callable[[str], None]) -> Image:
    """An image of somebody else; its digest is recorded where the list has none."""
    digest = other.digest or docker.digest(other.reference)
    if not other.digest:
        say(f"note: the list has no digest of {other.reference}; it is {digest or 'an image that was made here'}")
    file = f"images/{other.path.replace('/', '-').replace(':', '-')}.tar"
    source = f"{other.reference} {docker.identity(other.reference)}"
    writer.add(file, source, lambda to: docker.save(other.reference, to))
    return Image(file=file, reference=other.reference, path=other.path, digest=digest)
