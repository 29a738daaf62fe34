"""What a bundle is made of, besides images: manifests, packages and wheels."""

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kfp_hybrid import images, pipelines, profiles
from kfp_hybrid.bundle import checksums
from kfp_hybrid.bundle.third_party import ThirdParty, relocate
from kfp_hybrid.errors import UserError
from kfp_hybrid.profiles import KubeflowProfile, Profiles, image_reference
from kfp_hybrid.sources import compile_pipeline, pipeline_names
from kfp_hybrid.targets.kubeflow import KubeflowTarget

SITE = "registry.internal:5000"  # what manifests/overlays/airgapped calls the registry of a site
AIRGAPPED = "overlays/airgapped/kfp-hybrid.toml"
OURS = images.REGISTRY.partition("/")[2]  # the folder of our images in any registry
SOURCES = ("setup.py", "pyproject.toml", "README.md", "hybrid", "components", "pipelines")
LEFT_OUT = ("__pycache__", "*.pyc", "*.egg-info")


def repository() -> Path:
    """The clone of the repository that this package runs from.

    Raises:
        UserError: it is installed without one.
    """
    root = Path(pipelines.__path__[0]).parent
    if not (root / "manifests").is_dir():
        raise UserError(
            "bundles are made in a clone of the repository, with scripts/setup.sh; this is an installed package"
        )
    return root


def write_manifests(folder: Path, registry: str, others: list[ThirdParty]) -> None:
    """Copy the manifests, all images of which are then in `registry`; those for kind are left out.

    Names that Kustomize replaces are changed in the same way as what replaces them, so all overlays go on working.
    """
    ignored = shutil.ignore_patterns(*LEFT_OUT, "kind", "images.yaml", "*.env")
    shutil.copytree(repository() / "manifests", folder, ignore=ignored)
    changes = {SITE: registry, images.REGISTRY: f"{registry}/{OURS}"}
    changes |= {other.name: f"{registry}/{other.path.rpartition(':')[0]}" for other in others}
    for name in checksums.files_below(folder):
        file = folder / name
        text = file.read_text("utf-8")
        for old, new in changes.items():
            text = text.replace(old, new)
        file.write_text(text, "utf-8")


def write_kubeflow_pipelines(folder: Path, built: Path, registry: str, listed: list[ThirdParty]) -> None:
    """Copy the manifests of Kubeflow Pipelines, all images of which are then in `registry`.

    Args:
        folder: Where to.
        built: A folder with what `kubectl kustomize` wrote; its .yaml files, in the order of their names.
        registry: The registry of the site.
        listed: The images that are known.

    Raises:
        UserError: there is no file, one cannot be read, or it names an image that is not known.
    """
    files = sorted(built.glob("*.yaml"))
    if not files:
        raise UserError(f"there is no .yaml file in {built}; scripts/kfp-manifests.sh writes them")
    folder.mkdir()
    for file in files:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {file}: {error}") from None
        (folder / file.name).write_text(relocate(text, listed, registry), "utf-8")


def site_profiles(manifests: Path) -> Profiles:
    """The target that the manifests of a bundle make."""
    return profiles.load(manifests / AIRGAPPED)


def in_registry(profile: KubeflowProfile, registry: str, others: list[ThirdParty]) -> KubeflowProfile:
    """The profile with all images in `registry`, by tag: a digest changes on the way."""
    versions = profile.images.model_dump()
    kept = {name: version for name, version in versions.items() if version and not version.startswith("sha256:")}
    tags = profile.images.model_copy(update={**dict.fromkeys(versions), **kept})
    moved = {"registry": f"{registry}/{OURS}", "images": tags}
    if profile.server == "tensorflow-serving":
        moved["serving_image"] = next(
            (f"{registry}/{other.path}" for other in others if _serves(other, profile)), profile.serving_image
        )
    return profile.model_copy(update=moved)


def _serves(other: ThirdParty, profile: KubeflowProfile) -> bool:
    named = profile.serving_image
    return other.reference.endswith(named) if named else other.name.endswith("tensorflow/serving")


def write_packages(folder: Path, name: str, profile: KubeflowProfile, loaded: Profiles) -> None:
    """Compile every pipeline for a site."""
    target = KubeflowTarget(name, profile, loaded.resources_for)
    for pipeline in pipeline_names():
        compile_pipeline(pipeline, target, folder / f"{pipeline}.yaml")


def our_images(packages: Path, profile: KubeflowProfile) -> list[str]:
    """The images of this collection that a site needs, as they are called in its registry.

    Those that packages name, which may be variants for accelerators, and those of `profile`.
    """
    references = {image_reference(profile, name) for name in images.names()}
    ours = re.compile(rf"(?<![\w.:/-]){re.escape(profile.registry)}/[a-z0-9-]+:[\w.-]+")
    for name in checksums.files_below(packages):
        references.update(ours.findall((packages / name).read_text("utf-8")))
    host = profile.registry.removesuffix(OURS)
    return sorted(reference.removeprefix(host) for reference in references)


def wheels_source(extras: tuple[str, ...]) -> str:
    """What the wheels are made from, as a hash: this project's source, the extras, and the interpreter."""
    digest = hashlib.sha256(f"{sys.version} {sorted(extras)}".encode())
    root = repository()
    for name in SOURCES:
        top = root / name
        for file in [top] if top.is_file() else sorted(top.rglob("*")):
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"\n{file.relative_to(root)} {checksums.sha256(file)}".encode())
    return digest.hexdigest()


def write_wheels(folder: Path, extras: tuple[str, ...]) -> None:
    """Build or download the wheels of this project and of all that it needs, for this Python and platform.

    Raises:
        UserError: pip cannot.
    """
    with tempfile.TemporaryDirectory() as copy:
        for name in SOURCES:  # a copy: setuptools leaves nothing in the clone, and takes nothing that was left there
            _copy(repository() / name, Path(copy) / name)
        wanted = f"{copy}[{','.join(extras)}]" if extras else copy
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(folder), wanted]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line or "No module" in line]
        raise UserError(f"pip cannot make the wheels: {lines[0] if lines else done.stderr.strip()[-300:]}")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    else:
        shutil.copy(source, target)
