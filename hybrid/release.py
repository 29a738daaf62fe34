"""What a release has of every pipeline: packages in `pipelines/compiled/`, resources in `manifests/pipelines/native/`.

    python -m kfp_hybrid.release            # write them
    python -m kfp_hybrid.release --check    # exit status 1 when one is stale

The same source gives the same bytes, so that a difference is a change.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from kfp_hybrid import pipelines, profiles
from kfp_hybrid.lint import ERROR
from kfp_hybrid.package import Package
from kfp_hybrid.sources import build, compile_pipeline, pipeline_names
from kfp_hybrid.targets import open_target
from kfp_hybrid.targets.kubeflow import KubeflowTarget

FOLDER = Path(pipelines.__path__[0]) / "compiled"
CONFIG = FOLDER.parent.parent / "kfp-hybrid.toml"
RESOURCES = CONFIG.parent / "manifests" / "pipelines" / "native"
INDEX = "INDEX.md"


def write(folder: Path) -> None:
    """Compile every pipeline for every target of the repository's profiles, and index them.

    Raises:
        UserError: a pipeline does not compile.
        SystemExit: a package breaks a rule of its target.
    """
    loaded = profiles.load(CONFIG)
    for target_name in loaded.targets:
        target = open_target(target_name, loaded, folder)
        for pipeline in pipeline_names():
            file = folder / target_name / f"{pipeline}.yaml"
            compile_pipeline(pipeline, target, file)
            errors = [finding for finding in target.lint(Package.load(file)) if finding.level == ERROR]
            if errors:
                sys.exit(f"{file}: {errors[0].rule.id} {errors[0].task}: {errors[0].message}")
    (folder / INDEX).write_text(index(folder, list(loaded.targets)), "utf-8")


def write_resources(folder: Path) -> None:
    """Write every pipeline as resources of Kubernetes, and the kustomization that names the files.

    Raises:
        UserError: a pipeline does not compile.
    """
    target = open_target("onprem", profiles.load(CONFIG), folder)
    assert isinstance(target, KubeflowTarget)
    files = [f"{pipeline}.yaml" for pipeline in pipeline_names()]
    for pipeline, file in zip(pipeline_names(), files, strict=True):
        target.compile_custom_resources(build(pipeline, target), folder / file)
    resources = "".join(f"  - {file}\n" for file in files)
    (folder / "kustomization.yaml").write_text(
        "# Written by `scripts/release.sh`. For Kubeflow Pipelines that keeps pipelines in Kubernetes:\n"
        "#   kubectl apply -n kubeflow -k manifests/pipelines/native\n"
        "apiVersion: kustomize.config.k8s.io/v1beta1\n"
        f"kind: Kustomization\nresources:\n{resources}",
        "utf-8",
    )


def index(folder: Path, targets: list[str]) -> str:
    """What packages there are, and what each asks for, as Markdown."""
    parts = [
        "<!-- Written by `scripts/release.sh`. -->\n# Compiled packages\n\n"
        "Upload one in the Kubeflow Pipelines UI, import it in the Vertex AI console, or hand it to `kfp-hybrid run`.\n"
        "\nThey are made with `kfp-hybrid.toml`, whose images are the released ones. Those for Vertex AI name a\n"
        "project and region where they deploy or train with AutoML: put in yours, and `kfp-hybrid compile` writes\n"
        "your own; so it does for images in Artifact Registry, which is where Vertex AI pulls from.\n"
    ]
    for pipeline in pipeline_names():
        package = Package.load(folder / targets[0] / f"{pipeline}.yaml")
        info = package.spec.pipeline_info
        links = ", ".join(f"[{target}]({target}/{pipeline}.yaml)" for target in targets)
        parts.append(f"\n## {info.display_name}\n\n{info.description}\n\n{links}\n")
        if package.parameters:
            rows = "".join(f"| `{name}` | {_cell(package, name)} |\n" for name in package.parameters)
            parts.append(f"\n| parameter | |\n|---|---|\n{rows}")
    return "".join(parts)


def _cell(package: Package, name: str) -> str:
    return " ".join(package.describe_parameter(name).split()).replace("|", "\\|")


def stale(folder: Path, write: Callable[[Path], None] = write) -> list[str]:
    """The files of `folder` that are not what the source gives."""
    with tempfile.TemporaryDirectory() as fresh:
        write(Path(fresh))
        there, wanted = _files(folder), _files(Path(fresh))
        return sorted(name for name in there | wanted if there.get(name) != wanted.get(name))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def main() -> None:
    """Write the packages, or check them."""
    parser = argparse.ArgumentParser(description="Write the compiled packages, or check that they are current.")
    parser.add_argument("--check", action="store_true", help="only check")
    check = parser.parse_args().check
    for folder, write_all in ((FOLDER, write), (RESOURCES, write_resources)):
        if not check:
            write_all(folder)
            print(f"wrote {folder}")
        elif names := stale(folder, write_all):
            sys.exit(f"stale in {folder}: {', '.join(names)}; run scripts/release.sh")


if __name__ == "__main__":
    main()
