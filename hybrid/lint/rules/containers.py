"""KH4: what steps run, and in which images."""

import re
from collections.abc import Iterator

from kfp_hybrid import images
from kfp_hybrid.lint.rule import ERROR, KUBEFLOW, LOCAL, VERTEX, WARNING, Breach, rule
from kfp_hybrid.lint.spec import Pipeline

PIP_INSTALL = re.compile(r"\bpip3? +(?:-\S+ +)*install\b")


@rule(
    "KH401",
    "container-component",
    local=ERROR,
    mend="Write it as a Python component in an image of this collection, or run it on a cluster.",
)
def container_component(pipeline: Pipeline) -> Iterator[Breach]:
    """A step runs a Python function, so that it needs no container engine."""
    for task in pipeline.tasks:
        special = task.is_google_cloud or task.is_kubernetes_operation
        if task.container and not task.is_python_component and not special:
            yield Breach(LOCAL, f"runs {task.container.image}; a local run takes Python components only", task)


@rule(
    "KH402",
    "image-lock",
    local=ERROR,
    mend="Use an image of this collection, or add one with a lock file under components/images.",
)
def image_lock(pipeline: Pipeline) -> Iterator[Breach]:
    """The image of a step has a lock file in this collection, from which a local run makes its environment."""
    locked = images.names()
    for task in pipeline.tasks:
        if task.is_python_component and not task.is_google_cloud and images.name_of(task.container.image) not in locked:
            what = f"the image {task.container.image} has no lock file; a local run refuses to start"
            yield Breach(LOCAL, what, task)


@rule(
    "KH403",
    "image-tag",
    kubeflow=WARNING,
    vertex=WARNING,
    mend="Name a version (image:1.2.3) or a digest (image@sha256:...).",
)
def image_tag(pipeline: Pipeline) -> Iterator[Breach]:
    """An image has a tag other than `latest`, or a digest.

    Otherwise two runs of one package can run different code, and the cache takes one for the other.
    """
    for task in pipeline.tasks:
        if task.container is None or task.is_kubernetes_operation or "{{" in task.container.image:
            continue
        name, _, tag = task.container.image.rpartition("/")[2].partition(":")
        if "@" not in name + tag and tag in ("", "latest"):
            for target in (KUBEFLOW, VERTEX):
                what = f"the image {task.container.image} is whatever the registry has that day, so results can change"
                yield Breach(target, what, task)


@rule(
    "KH404",
    "runtime-install",
    local=ERROR,
    kubeflow=WARNING,
    vertex=WARNING,
    mend="Put the packages into the image, and compile with install_kfp_package=False and no packages_to_install.",
)
def runtime_install(pipeline: Pipeline) -> Iterator[Breach]:
    """A step installs nothing when it starts; what it imports is in its image.

    With pip, each start costs time and needs a package index, which a site without internet does not have, and two runs
    can get different versions. The environments of a local run have no pip: they hold what the lock file says.
    """
    for task in pipeline.tasks:
        if any(PIP_INSTALL.search(word) for word in task.words if word != task.python_source):
            yield Breach(LOCAL, "installs with pip when it starts, and fails: No module named pip", task)
            for target in (KUBEFLOW, VERTEX):
                what = "installs with pip when it starts: needs a package index each time, and versions can change"
                yield Breach(target, what, task)


@rule(
    "KH405",
    "google-cloud-only",
    local=ERROR,
    kubeflow=ERROR,
    mend="Keep it out of the shared pipeline; use a component that runs anywhere, or compile for Vertex AI only.",
)
def google_cloud_only(pipeline: Pipeline) -> Iterator[Breach]:
    """Google Cloud pipeline components and custom jobs are for Vertex AI only."""
    for task in pipeline.tasks:
        if task.executor.HasField("custom_job"):
            yield Breach(KUBEFLOW, "is a custom job; Kubeflow refuses the run: Google Cloud only", task)
            yield Breach(LOCAL, "is a custom job, which a local run cannot start", task)
        elif task.is_google_cloud:
            yield Breach(KUBEFLOW, "calls Google Cloud, which a cluster elsewhere has no credentials for", task)
            yield Breach(LOCAL, "is a container that calls Google Cloud; a local run does not start it", task)
