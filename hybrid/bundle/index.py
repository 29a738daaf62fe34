"""bundle.json: what is in a bundle and what it was made from. While a bundle is written, it is also the journal."""

import os
from pathlib import Path

import pydantic

from kfp_hybrid.errors import UserError

NAME = "bundle.json"
KUBEFLOW_PIPELINES = "kubeflow-pipelines"  # the part with its manifests, if there is one


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Image(_Record):
    """An image in a bundle.

    Attributes:
        file: Its archive, as a path in the bundle.
        reference: Its name in the archive.
        path: What it is called in the registry of a site, with its tag.
        digest: What the registry that it came from calls it; empty for an image that was built here.
    """

    file: str
    reference: str
    path: str
    digest: str = ""


class Part(_Record):
    """Files that are made together.

    Attributes:
        source: What they were made from: the same source needs not be made again. Empty: make it each time.
        files: Path in the bundle -> sha256.
    """

    source: str
    files: dict[str, str]


class Index(_Record):
    """The whole file.

    Attributes:
        version: The version of this package.
        registry: The registry that the packages and manifests name: a host, with a folder or not.
        python: The Python version that the wheels are for, such as 3.11.
        platform: The platform that wheels and images are for, such as linux-x86_64.
        images: The images, in the order in which they are loaded.
        parts: What was written, by path.
    """

    version: str
    registry: str
    python: str
    platform: str
    images: list[Image] = []
    parts: dict[str, Part] = {}

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """The index of the bundle in `folder`.

        Raises:
            UserError: it is missing or is not an index.
        """
        file = folder / NAME
        try:
            return cls.model_validate_json(file.read_bytes())
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}; give the folder of a bundle") from None
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(f"{file} is not the index of a bundle of this version: {where} {first['msg']}") from None

    def write(self, folder: Path) -> None:
        """Write the index; it is there whole or as it was."""
        write_whole(folder / NAME, self.model_dump_json(indent=1) + "\n")


def write_whole(file: Path, text: str) -> None:
    """Write a text file so that it is there whole or as it was, also after a power cut."""
    path = file.with_name(unfinished(file.name))
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    path.replace(file)


def unfinished(name: str) -> str:
    """The name under which `write_whole` writes the file `name`."""
    return f".{name}.unfinished"
