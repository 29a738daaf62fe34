"""Where the model is that is to be served: from the artifact, or from a URI."""

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Protocol

from kfp_hybrid.step import StepError

SCHEMES = ("s3", "minio", "gs", "http", "https", "pvc")
NUMBER = re.compile(r"[1-9][0-9]*")


class Artifact(Protocol):
    """What this module uses of a KFP artifact."""

    uri: str
    path: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True)
class ModelLocation:
    """One model in a store.

    Attributes:
        folder: The URI of the folder of versions, without a slash at its end; of the model itself if version is 0.
        version: The number of the version, which is the name of its folder; 0 when it is not known.
        digest: What the publisher says of its content; "" when it is not known.
        options: How to reach the store, such as "?endpoint=store:9000"; "" for none.
        holds_versions: Whether a folder whose version is not known is one of versions, and not the model itself.
    """

    folder: str
    version: int = 0
    digest: str = ""
    options: str = ""
    holds_versions: bool = False

    @property
    def uri(self) -> str:
        """The URI of the model."""
        return f"{self.folder}/{self.version}{self.options}" if self.version else f"{self.folder}{self.options}"

    @property
    def scheme(self) -> str:
        """The part of the URI before ://."""
        return self.folder.partition("://")[0]

    def in_kserve_terms(self) -> "ModelLocation":
        """The same place as KServe spells it: it reads S3 stores of any make as s3://, and takes no options."""
        rest = self.folder.partition("://")[2]
        scheme = "s3" if self.scheme == "minio" else self.scheme
        return dataclasses.replace(self, folder=f"{scheme}://{rest}", options="")


def locate(model: Artifact | None, storage_uri: str) -> ModelLocation:
    """Find out which model is meant.

    Args:
        model: The model artifact: of push_model, or imported.
        storage_uri: The URI, instead of an artifact. A number as its last part is a version.

    Raises:
        StepError: nothing was given, the model was refused by the gates, or it is where no cluster can read it.
    """
    if storage_uri:
        location = _parse(storage_uri)
        return dataclasses.replace(location, holds_versions=not location.version)
    if model is None:
        raise StepError("there is nothing to deploy; give model (what push_model put out) or storage_uri")
    if "outcome" not in model.metadata:
        return _parse(model.uri)
    version = int(model.metadata.get("version") or 0)
    if not version:
        raise StepError("push_model refused this model, so there is nothing to deploy; look at the reason it gave")
    destination, mark, options = str(model.metadata["destination"]).partition("?")
    location = _parse(f"{destination.rstrip('/')}/{version}{mark}{options}")
    return dataclasses.replace(location, digest=str(model.metadata.get("digest", "")))


def _parse(uri: str) -> ModelLocation:
    address, mark, options = uri.strip().partition("?")
    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "file":
        raise StepError(
            f"{uri} is a path of one machine, which serving pods cannot read; publish to an object store "
            "(destination of push_model, such as s3://bucket/models) or give storage_uri=pvc://CLAIM/PATH"
        )
    rest = rest.rstrip("/")
    if scheme not in SCHEMES or not rest or rest.startswith("/"):
        raise StepError(
            f"{uri} is nothing that can be served; give s3, minio, gs, http(s) or pvc, as in s3://bucket/a/7"
        )
    if scheme in ("http", "https"):  # an archive, whose name says nothing
        return ModelLocation(f"{scheme}://{rest}", options=mark + options)
    parent, _, last = rest.rpartition("/")
    if parent and NUMBER.fullmatch(last):
        return ModelLocation(f"{scheme}://{parent.rstrip('/')}", int(last), options=mark + options)
    return ModelLocation(f"{scheme}://{rest}", options=mark + options)
