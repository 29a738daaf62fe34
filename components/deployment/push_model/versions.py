"""What a published version is, and the names in a destination."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol

from kfp_hybrid.components.deployment.push_model import content
from kfp_hybrid.components.deployment.push_model.content import Checksum
from kfp_hybrid.step import StepError

LATEST = "LATEST"
MANIFEST = "MANIFEST.json"
EDGE = "edge"
MODEL = "kfp-hybrid/published-model"
PREDICTIONS = "kfp-hybrid/published-predictions"
FORMATS = {MODEL: "models", PREDICTIONS: "predictions"}
FORMAT_VERSION = 1


class Files(Protocol):
    """Where the files of versions are."""

    def checksums(self, number: int) -> dict[str, Checksum]:
        """Read every file of a version but its manifest; checksum by path in its folder."""


@dataclass(frozen=True)
class Version:
    """A published version, as its manifest describes it.

    Attributes:
        destination: Where it was published, a directory or URI.
        number: Its number, the name of its folder there.
        created: When it was published, ISO 8601 in UTC.
        digest: The digest of its content.
        files: The checksum of each file by its path in the folder.
        blessed: Whether the gates had accepted the model.
        reason: What the gates said of it.
        source: Where the model came from.
        format: What was published, one of `FORMATS`.
    """

    destination: str
    number: int
    created: str
    digest: str
    files: Mapping[str, Checksum]
    blessed: bool
    reason: str
    source: Mapping[str, object]
    format: str
    _where: Files = field(repr=False, compare=False)

    @property
    def path(self) -> str:
        """The folder of the version: a path or URI."""
        return f"{self.destination}/{self.number}"

    @property
    def bytes(self) -> int:
        """The size of the content."""
        return sum(file.bytes for file in self.files.values())

    def verify(self) -> None:
        """Read every file and compare it with the manifest.

        Raises:
            StepError: when a file is missing, was added or has other bytes.
        """
        if damage := content.difference(self.files, self._where.checksums(self.number)):
            raise StepError(f"version {self.number} in {self.destination} is damaged: {damage}; use another version")
        if content.digest(self.files) != self.digest:
            raise StepError(f"version {self.number} in {self.destination} has an altered manifest; use another version")


def write_manifest(number: int, files: Mapping[str, Checksum], notes: Mapping[str, object]) -> str:
    """The text of the manifest of a new version; it is one of a model, unless the notes name another format."""
    manifest = {
        "format": MODEL,
        "format_version": FORMAT_VERSION,
        "version": number,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "digest": content.digest(files),
        "files": {name: files[name]._asdict() for name in sorted(files)},
        **notes,
    }
    return json.dumps(manifest, indent=2) + "\n"


def read_manifest(text: str, destination: str, number: int, where: Files) -> Version:
    """The version that a manifest describes.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no manifest, or that of another version.
    """
    manifest = json.loads(text)
    if manifest["format"] not in FORMATS or manifest["format_version"] != FORMAT_VERSION:
        raise ValueError(f"its format is {manifest['format']} {manifest['format_version']}")
    if manifest["version"] != number:
        raise ValueError(f"it is the manifest of version {manifest['version']}")
    return Version(
        destination=destination,
        number=number,
        created=manifest["created"],
        digest=manifest["digest"],
        files={name: Checksum(**file) for name, file in manifest["files"].items()},
        blessed=manifest["blessing"]["blessed"],
        reason=manifest["blessing"]["reason"],
        source=manifest["source"],
        format=manifest["format"],
        _where=where,
    )
