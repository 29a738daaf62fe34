"""KH0: the package as a whole."""

import json
import re
from collections.abc import Iterator

from google.protobuf import json_format

from kfp_hybrid.lint.rule import ERROR, KUBEFLOW, VERTEX, WARNING, Breach, rule
from kfp_hybrid.lint.spec import Pipeline

SCHEMA_VERSION = "2.1.0"
ARGO_LIMIT = 700_000  # bytes; what fits into the Argo workflow that Kubeflow makes of a package
JOB_ID = re.compile(r"[a-z][-a-z0-9]{0,127}")  # of Vertex AI: the pipeline's name, a hyphen and 14 digits of time
LONGEST_NAME = 128 - 15


@rule(
    "KH001",
    "platform-document",
    vertex=ERROR,
    mend="Compile it for Vertex AI without `kfp.kubernetes` calls and without `PipelineConfig`.",
)
def platform_document(pipeline: Pipeline) -> Iterator[Breach]:
    """A package for Vertex AI is one YAML document.

    Every call of `kfp.kubernetes`, and `dsl.PipelineConfig`, adds a second document with platform settings. Kubeflow
    applies it, a local run ignores it, and the Vertex AI client refuses the file.
    """
    if pipeline.documents > 1:
        yield Breach(
            VERTEX,
            f"the file has {pipeline.documents} YAML documents; the Vertex AI client reads one and refuses the file: "
            "expected a single document",
        )


@rule(
    "KH002",
    "pipeline-name",
    vertex=ERROR,
    mend=f"Give the pipeline a name that starts with a letter and has at most {LONGEST_NAME} characters.",
)
def pipeline_name(pipeline: Pipeline) -> Iterator[Breach]:
    """A pipeline's name starts with a letter and leaves room for a time stamp.

    Vertex AI makes the job's id from the name and the time, and takes lower-case letters, digits and hyphens, a
    letter first, 128 characters in all.
    """
    name = pipeline.spec.pipeline_info.name
    job = re.sub("[^-0-9a-z]+", "-", name.lower()).strip("-") + "-" + "0" * 14
    if not JOB_ID.fullmatch(job):
        fault = f"has more than {LONGEST_NAME} characters" if job[0].isalpha() else "does not start with a letter"
        yield Breach(VERTEX, f"the name {name} {fault}; the Vertex AI client cannot make a job id of it")


@rule(
    "KH003",
    "pipeline-root",
    kubeflow=ERROR,
    vertex=ERROR,
    mend="Compile without `pipeline_root`; give the root when the run is submitted.",
)
def pipeline_root(pipeline: Pipeline) -> Iterator[Breach]:
    """The pipeline root is given at submission, not in the package.

    Vertex AI writes to `gs://` only. Kubeflow writes to `minio://`, `s3://` or `gs://`; its run form proposes the
    package's root to everybody who presses Start.
    """
    root = pipeline.spec.default_pipeline_root
    if not root:
        return
    if not root.startswith("gs://"):
        yield Breach(VERTEX, f"the root is fixed to {root}; Vertex AI takes gs:// only, so the run fails")
    if root.startswith("gs://"):
        yield Breach(
            KUBEFLOW,
            f"the root is fixed to {root}; the run form proposes it, and without Google credentials every step fails",
        )
    elif not root.startswith(("minio://", "s3://")):
        yield Breach(
            KUBEFLOW, f"the root is fixed to {root}; the run form proposes it, and Kubeflow cannot write there"
        )


@rule(
    "KH004",
    "spec-size",
    kubeflow=WARNING,
    mend="Move code and constants from the package into the image or a file, or split the pipeline.",
)
def spec_size(pipeline: Pipeline) -> Iterator[Breach]:
    """A package stays below 700 kB.

    Kubeflow turns it into one Argo workflow, which has that limit and holds more than the package.
    """
    size = len(json.dumps(json_format.MessageToDict(pipeline.spec), ensure_ascii=False).encode())
    if size > ARGO_LIMIT:
        yield Breach(KUBEFLOW, f"the package has {size / 1000:,.0f} kB; above 700 kB Argo may refuse the run")


@rule("KH005", "schema-version", kubeflow=ERROR, mend="Compile it again with kfp 2.")
def schema_version(pipeline: Pipeline) -> Iterator[Breach]:
    """The schema version is 2.1.0, the only one that Kubeflow's API server accepts."""
    version = pipeline.spec.schema_version
    if version != SCHEMA_VERSION:
        yield Breach(
            KUBEFLOW, f"the schema version is {version or 'missing'}; the API server takes {SCHEMA_VERSION} only"
        )
