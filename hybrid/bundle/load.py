"""Brings a bundle into the registry of an isolated site."""

import re
from collections.abc import Callable
from pathlib import Path

from kfp_hybrid.bundle.docker import Docker
from kfp_hybrid.bundle.index import KUBEFLOW_PIPELINES, Index
from kfp_hybrid.bundle.verify import verify
from kfp_hybrid.errors import UserError

REWRITTEN = ("manifests", "packages", KUBEFLOW_PIPELINES)


def load(folder: Path, registry: str, output: Path | None, say: Callable[[str], None]) -> None:
    """Check a bundle, push its images, and give the manifests and packages for this registry.

    Args:
        folder: The bundle; it is only read.
        registry: The registry of the site: a host, with a folder or not.
        output: A new folder for manifests and packages that name another registry than the bundle was made for.
        say: Is told what was done, and what to do next.

    Raises:
        UserError: the bundle is not as it was made (then nothing was loaded), or the registry refuses an image.
    """
    index = verify(folder)
    if output is None and registry != index.registry:
        raise UserError(f"the manifests and packages in {folder} name {index.registry}; to have them name {registry}, "
                        "give a new folder for them with -o")  # fmt: skip
    if output is not None and output.exists() and any(output.iterdir()):
        raise UserError(f"{output} is not empty; give a new folder with -o")
    docker = Docker()
    for image in index.images:
        docker.load(folder / image.file)
        docker.push(image.reference, f"{registry}/{image.path}")
        say(f"pushed {registry}/{image.path}")
    if output is not None:
        _rewrite(folder, index, registry, output)
    say(_next_steps(folder, index, output))


def _rewrite(folder: Path, index: Index, registry: str, output: Path) -> None:
    """Write manifests and packages with another registry."""
    name = re.compile(rf"(?<![\w.:/-]){re.escape(index.registry)}(?![\w.:-])")
    for part in REWRITTEN:
        for file in index.parts[part].files if part in index.parts else ():
            text = (folder / file).read_text("utf-8")
            target = output / file
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(name.sub(lambda _: registry, text), "utf-8")
            except OSError as error:
                raise UserError(f"cannot write {target}: {error.strerror}; give another folder with -o") from None


def _next_steps(folder: Path, index: Index, output: Path | None) -> str:
    # What is filled in must not become a part of the bundle, which would then be none any more.
    site = output or Path("site")
    parts = " ".join(str(folder / part) for part in REWRITTEN if part in index.parts)
    copy = "" if output else f"  mkdir site && cp -r {parts} site\n"
    secrets = site / "manifests" / "secrets"
    overlay = site / "manifests" / "overlays" / "airgapped"
    return f"""Next, on a machine with Python {index.python} ({index.platform}):
  pip install --no-index --find-links {folder / "wheels"} kfp-hybrid=={index.version}
{copy}  cp {overlay / "kfp-hybrid.toml"} .        # the target; `kfp-hybrid doctor onprem` checks it
{_kubeflow_pipelines(index, site)}On the cluster, in the namespace of Kubeflow Pipelines:
  cp {secrets / "object-store.env.template"} {secrets / "object-store.env"}        # and fill it in
  kubectl apply -n kubeflow -k {secrets}
  kubectl apply -k {overlay}
  kubectl apply -k {overlay / "trainer"}        # once for the cluster, with Kubeflow Trainer
  kubectl apply -k {overlay / "serving"}        # once for the cluster, with KServe
Packages to upload by hand: {site / "packages"}"""


def _kubeflow_pipelines(index: Index, site: Path) -> str:
    """How to install Kubeflow Pipelines, if the bundle has its manifests."""
    if KUBEFLOW_PIPELINES not in index.parts:
        return ""
    # The first file defines the kinds of what the others hold.
    wait = "  kubectl wait --for=condition=established --timeout=60s crd --all\n"
    files = sorted(index.parts[KUBEFLOW_PIPELINES].files)
    applied = wait.join(f"  kubectl apply --server-side --force-conflicts -f {site / file}\n" for file in files)
    return f"On a cluster without Kubeflow Pipelines:\n{applied}"
