"""Images through Docker's command line, or one that takes the same commands, such as Podman's."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from kfp_hybrid.errors import UserError
from kfp_hybrid.retries import retry

VARIABLE = "DOCKER"
PATIENCE_SECONDS = 120.0  # with a registry that is busy


class Docker:
    """The client, with a daemon that answers."""

    def __init__(self) -> None:
        self._program = os.environ.get(VARIABLE) or "docker"
        if shutil.which(self._program) is None:
            raise UserError(f"there is no {self._program}; install Docker, or name another client: {VARIABLE}=podman")
        if (done := self._try("version")).returncode:
            raise UserError(f"{self._program} does not answer: {_reason(done)}; start its daemon")

    def identity(self, reference: str) -> str | None:
        """The id of an image on this machine; None when it is not here."""
        done = self._try("image", "inspect", "--format", "{{.Id}}", reference)
        return None if done.returncode else done.stdout.strip()

    def digest(self, reference: str) -> str:
        """What the registry calls an image that was pulled; empty for one that was built here."""
        digests = json.loads(self._do("image", "inspect", "--format", "{{json .RepoDigests}}", reference)) or []
        # Docker leaves out what it takes for granted, such as docker.io/.
        wanted = reference.rpartition(":")[0]
        return next((value for name, _, value in (each.partition("@") for each in digests)
                     if f"/{wanted}".endswith(f"/{name}")), "")  # fmt: skip

    def pull(self, reference: str, digest: str = "") -> None:
        """Get an image from its registry, under its tag; with a digest, exactly that one.

        Raises:
            UserError: it cannot be had; the message names the image.
        """
        if not digest:
            self._with_retries("pull", reference)
            return
        pinned = f"{reference.rpartition(':')[0]}@{digest}"
        self._with_retries("pull", pinned)
        self._do("tag", pinned, reference)

    def save(self, reference: str, file: Path) -> None:
        """Write the archive of an image, with its tag.

        Raises:
            UserError: Docker cannot, or what it wrote is not a whole archive of this image.
        """
        with file.open("wb") as stream:
            done = subprocess.run([self._program, "save", reference], stdout=stream, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise UserError(f"cannot save the image {reference}: {_reason(done)}")
        if reference not in tags_in(file):
            raise UserError(f"the archive that {self._program} wrote of {reference} does not have it; run this again")

    def run(self, reference: str, program: str, *arguments: str) -> str:
        """What a Python program prints that runs in an image, without network."""
        command = ("run", "--rm", "--interactive", "--network", "none", reference, "python3", "-", *arguments)
        return self._do(*command, given=program)

    def load(self, file: Path) -> None:
        """Load the images of an archive."""
        self._do("load", "--input", str(file))

    def push(self, reference: str, target: str) -> None:
        """Push an image that is here under another name.

        Raises:
            UserError: the registry does not take it; the message names the image.
        """
        self._do("tag", reference, target)
        self._with_retries("push", target)

    def _with_retries(self, command: str, reference: str) -> None:
        retry(
            lambda: self._do(command, reference),
            f"{self._program} {command} {reference}",
            lambda error: str(error.passing) if isinstance(error, _Failed) else "",
            lambda _: PATIENCE_SECONDS,
        )

    def _do(self, *arguments: str, given: str | None = None) -> str:
        done = self._try(*arguments, given=given)
        if done.returncode:
            raise _Failed(f"{self._program} cannot {arguments[0]} {arguments[-1]}: {_reason(done)}", done.stderr)
        return done.stdout

    def _try(self, *arguments: str, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([self._program, *arguments], input=given, capture_output=True, text=True)


class _Failed(UserError):
    """A command of Docker failed.

    Attributes:
        passing: What may be gone the next time, in a few words; empty when trying again would not help.
    """

    PASSING = ("timeout", "timed out", "connection reset", "unexpected eof", "too many requests", "toomanyrequests",
               "500 internal", "502 bad", "503 service", "504 gateway", "temporary failure")  # fmt: skip

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.passing = next((words for words in self.PASSING if words in output.lower()), "")


def tags_in(file: Path) -> list[str]:
    """The tags of the images in an archive as `docker save` writes it; none when it is no whole archive."""
    try:
        with tarfile.open(file) as archive:
            stream = archive.extractfile("manifest.json")
            listed: Any = json.load(stream) if stream else []
            return [tag for image in listed for tag in image["RepoTags"] or []]
    except (tarfile.TarError, KeyError, ValueError, TypeError):
        return []


def _reason(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line of what a command says went wrong."""
    lines = done.stderr.strip().splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"
