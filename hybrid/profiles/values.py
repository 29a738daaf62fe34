"""The kinds of values that a profile holds, each with the sentence that says what it must be.

A message never repeats the value: somebody may have put a secret where none belongs.
"""

import re
import urllib.parse
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ValidationInfo

from kfp_hybrid import accelerators
from kfp_hybrid.errors import UserError

_DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_DNS_SUBDOMAIN = rf"(?=.{{1,253}}\Z){_DNS_LABEL}(\.{_DNS_LABEL})*"
_LABEL = r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_PROJECT = r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]|[0-9]+"
_BUCKET = r"[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]"
_TAG = r"[A-Za-z0-9_][-.\w]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"


def _matching(pattern: str, what: str) -> AfterValidator:
    expression = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not expression.fullmatch(value):
            raise ValueError(f"must be {what}")
        return value

    return AfterValidator(check)


def _check_url(value: str) -> str:
    try:
        url = urllib.parse.urlsplit(value)
        valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:  # a port that is no number, an open bracket
        valid = False
    if not valid or re.search(r"\s", value):
        raise ValueError("must be a URL such as https://kubeflow.example.com")
    if url.username is not None or url.password is not None:
        raise ValueError("must not hold a user name or password; see auth")
    if url.query or url.fragment:
        raise ValueError("must be a URL without anything after ? or #")
    return value.rstrip("/")


def _absolute_path(value: object, info: ValidationInfo) -> object:
    """A path in the file is relative to the file's folder, wherever the command is started."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be a path")
    return (info.context or {}).get("folder", Path()) / Path(value).expanduser()


def _check_accelerator(value: str) -> str:
    try:
        return accelerators.accelerator(value).name
    except UserError as error:
        raise ValueError(str(error)) from None


Name = Annotated[str, _matching(r"[A-Za-z0-9][-_A-Za-z0-9]*", "a name of letters, digits, hyphens and underscores")]
Text = Annotated[str, _matching(r".*\S.*", "some text")]
Url = Annotated[str, AfterValidator(_check_url)]
FilePath = Annotated[Path, BeforeValidator(_absolute_path)]
Accelerator = Annotated[str, AfterValidator(_check_accelerator)]
VariableName = Annotated[
    str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable, such as KFP_COOKIE")
]
Memory = Annotated[str, _matching(r"[1-9][0-9]*[MGT]i?", "a whole number with M, Mi, G, Gi, T or Ti, such as 16Gi")]

Registry = Annotated[
    str,
    _matching(
        r"[A-Za-z0-9][-.A-Za-z0-9]*(:[0-9]+)?(/[a-z0-9]+([-._]+[a-z0-9]+)*)*",
        "a registry and folder such as registry.example.com:5000/ml, without scheme, tag and final slash",
    ),
]
ImageVersion = Annotated[
    str, _matching(rf"{_TAG}(@{_DIGEST})?|{_DIGEST}", "a tag such as 1.4.0, a digest sha256:..., or tag@digest")
]

KubernetesName = Annotated[
    str, _matching(_DNS_LABEL, "a Kubernetes name: up to 63 lower-case letters, digits and hyphens")
]
KubernetesObject = Annotated[
    str, _matching(_DNS_SUBDOMAIN, "the name of a Kubernetes object: lower-case letters, digits, hyphens and dots")
]
SecretKey = Annotated[str, _matching(r"[-._A-Za-z0-9]{1,253}", "a key of a Kubernetes secret, such as accesskey")]
LabelKey = Annotated[
    str, _matching(rf"({_DNS_SUBDOMAIN}/)?{_LABEL}", "the key of a Kubernetes label, such as example.com/pool")
]
LabelValue = Annotated[
    str, _matching(rf"({_LABEL})?", "the value of a Kubernetes label: up to 63 letters, digits, '-', '_' and '.'")
]
MountPath = Annotated[str, _matching(r"/[^:\s]*[^:\s/]", "an absolute path in the container, such as /secrets/s3")]
ObjectStoreRoot = Annotated[
    str,
    _matching(
        rf"(gs://{_BUCKET}(/[^\s?#]*)?|(s3|minio)://{_BUCKET}(/[^\s?#]*)?(\?[^\s#]+)?)",
        "minio://, s3:// or gs:// with a bucket, such as s3://ml-artifacts/pipelines",
    ),
]

CloudStorageRoot = Annotated[
    str, _matching(rf"gs://{_BUCKET}(/[^\s?#]*)?", "gs:// with a bucket, such as gs://ml-artifacts/pipelines")
]
Project = Annotated[str, _matching(_PROJECT, "the ID of a Google Cloud project, such as ml-production")]
Location = Annotated[str, _matching(r"[a-z]+-[a-z]+[0-9]+", "a Google Cloud region, such as europe-west4")]
ServiceAccountEmail = Annotated[
    str,
    _matching(
        r"[-.\w]+@[-.a-z0-9]+\.gserviceaccount\.com",
        "the email of a service account, such as pipelines@ml-production.iam.gserviceaccount.com",
    ),
]
CryptoKey = Annotated[
    str,
    _matching(
        rf"projects/({_PROJECT})/locations/[-a-z0-9]+/keyRings/[-\w]+/cryptoKeys/[-\w]+",
        "projects/PROJECT/locations/REGION/keyRings/RING/cryptoKeys/KEY",
    ),
]
Network = Annotated[
    str, _matching(r"projects/[0-9]+/global/networks/[-a-z0-9]+", "projects/PROJECT_NUMBER/global/networks/NETWORK")
]
NetworkAttachment = Annotated[
    str,
    _matching(
        rf"projects/({_PROJECT})/regions/[-a-z0-9]+/networkAttachments/[-a-z0-9]+",
        "projects/PROJECT/regions/REGION/networkAttachments/NAME",
    ),
]
SecretVersion = Annotated[
    str,
    _matching(
        rf"projects/({_PROJECT})/secrets/[-\w]+/versions/([0-9]+|[A-Za-z][-\w]*)",
        "projects/PROJECT/secrets/SECRET/versions/VERSION",
    ),
]
CloudLabelKey = Annotated[
    str, _matching(r"[a-z][-_a-z0-9]{0,62}", "a label's key: a lower-case letter, then up to 62 of a-z, 0-9, '-', '_'")
]
CloudLabelValue = Annotated[
    str, _matching(r"[-_a-z0-9]{0,63}", "a label's value: up to 63 lower-case letters, digits, '-' and '_'")
]
