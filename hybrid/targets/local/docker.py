"""Run the steps of a local run as containers: the images and the isolation of a cluster, on this machine.

How containers are run is a `kfp.local.DockerRunner`. Starting them is done here and not left to kfp: kfp removes a
container while it still waits for its status, and takes one that has vanished for one that has succeeded.
"""

import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfp import local
from kfp.dsl import constants

from kfp_hybrid import images
from kfp_hybrid.errors import UserError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

KILLED = 137
ONE_STREAM = ["sh", "-c", 'exec "$@" 2>&1', "sh"]  # Docker keeps no order between the standard output and errors


class ContainerSteps:
    """Starts steps as containers and, when told to stop, ends all of them.

    A step has the rights of the user who starts the run, on a read-only file system and without any network. It
    sees the working folder, the folder of the runs, and, to read, what else its inputs name.

    Attributes:
        version: What the steps' results depend on besides their inputs: the identities of the images.
        kfp_runner: What `kfp.local.init` takes.
    """

    def __init__(self, references: Iterable[str], runs: Path, cache: Path, notify: Callable[[str], None]) -> None:
        """Connect to Docker and see to it that the images are there.

        Args:
            references: The images of the steps.
            runs: The folder in which runs have their folders; steps may take results from earlier ones.
            cache: The cache directory of this tool, where trainings keep their checkpoints.
            notify: Told in one line when an image has to be pulled.

        Raises:
            UserError: Docker does not answer, or an image is neither there nor can be pulled.
        """
        self._client = _connect()
        self.version = " ".join(sorted(_image_id(self._client, reference, notify) for reference in set(references)))
        checkpoints = cache / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        self._working_folder = Path.cwd()
        self._writable = [runs.absolute(), checkpoints, self._working_folder]
        self._options = {
            "user": f"{os.getuid()}:{os.getgid()}",
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges", "label=disable"],
            "network_mode": "none",
            "working_dir": str(self._working_folder),
            "environment": {"KFP_HYBRID_CHECKPOINTS": str(checkpoints)},
        }
        self.kfp_runner = local.DockerRunner(**self._options)
        self._creator = ThreadPoolExecutor(1)
        self._creator.submit(int).result()  # starts its thread, which would take a while when a container is made
        self._running: set[Container] = set()
        self._lock = threading.RLock()  # reentrant, since `stop` is called by signal handlers
        self._stopped = False

    def run(self, image: str, command: list[str], variables: dict[str, str], scratch: Path, log: Path) -> int:
        """Run a step to its end, its output into the file `log`, and return its exit status."""
        options = {**self._options, "environment": variables, "volumes": self._volumes(command, scratch)}
        # In a thread, which no interruption reaches: a container is either not made, or known and removed.
        creating = self._creator.submit(
            self._client.containers.create, image, command, entrypoint=ONE_STREAM, **options
        )
        try:
            container = creating.result()
            printed = container.attach(stream=True, logs=True)  # before it starts, so that nothing it prints is missed
            with self._lock:
                if self._stopped:
                    return KILLED
                container.start()
                self._running.add(container)
            with log.open("ab") as output:
                for piece in printed:
                    output.write(piece)
                    output.flush()
            return container.wait()["StatusCode"]
        finally:
            container = creating.result()
            self._running.discard(container)
            container.remove(force=True)

    def stop(self) -> None:
        """End every running step, and start no more. What a step writes is whole or absent, so nothing is left half."""
        from docker.errors import APIError

        with self._lock:
            self._stopped = True
            for container in self._running:
                try:
                    container.kill()
                except APIError:  # it has just ended
                    continue

    def _volumes(self, command: list[str], scratch: Path) -> dict[str, dict[str, str]]:
        """What of this machine a step sees, each folder under its own path, and where it writes temporary files."""
        temporary = scratch / "tmp"
        temporary.mkdir(exist_ok=True)
        volumes = {
            str(temporary): {"bind": "/tmp", "mode": "rw"},  # noqa: S108 - the container's, which nobody else has
            str(scratch): {"bind": constants.WORKSPACE_MOUNT_PATH, "mode": "rw"},
        }
        for path in _outermost(self._writable):
            volumes[str(path)] = {"bind": str(path), "mode": "rw"}
        for path in _outermost(_named_by_inputs(command)):
            if not any(path.is_relative_to(folder) for folder in self._writable):
                volumes[str(path)] = {"bind": str(path), "mode": "ro"}
        return volumes


def _connect() -> "DockerClient":
    try:
        import docker
    except ModuleNotFoundError:
        raise UserError("running steps as containers needs the package docker: pip install docker") from None
    if Path.cwd() == Path("/"):
        raise UserError("steps see the working folder, which must not be / ; change to the folder of your project")
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        raise UserError(
            f"Docker does not answer: {_reason(error)}; start it (on Debian: scripts/docker-up.sh), or run without it"
        ) from None
    return client


def _image_id(client: "DockerClient", reference: str, notify: Callable[[str], None]) -> str:
    from docker.errors import DockerException, ImageNotFound

    try:
        return client.images.get(reference).id
    except ImageNotFound:
        notify(f"pulling {reference}")
    try:
        return client.images.pull(reference).id
    except DockerException as error:
        raise UserError(
            f"the image {reference} is not on this machine and cannot be pulled: {_reason(error)}; "
            f"build it: scripts/images.sh build {images.name_of(reference)}"
        ) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """`paths` without those that lie in another one of them."""
    chosen: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in chosen):
            chosen.append(path)
    return chosen


def _named_by_inputs(command: list[str]) -> Iterator[Path]:
    """The existing files and folders that a step's artifacts and text parameters name by an absolute path."""
    inputs = json.loads(command[command.index("--executor_input") + 1]).get("inputs", {})
    named: list[Any] = list(inputs.get("parameterValues", {}).values())
    for artifacts in inputs.get("artifacts", {}).values():
        named += [artifact.get("uri") for artifact in artifacts["artifacts"]]
    for name in named:
        if isinstance(name, str) and name.startswith("/") and len(name) < os.pathconf("/", "PC_PATH_MAX"):
            path = _without_pattern(Path(name))
            if path != Path("/") and path.exists():
                yield path


def _without_pattern(path: Path) -> Path:
    """The folder that a pattern such as `/data/*.csv` starts from; a path without one is that path."""
    for number, part in enumerate(path.parts):
        if any(character in part for character in "*?["):
            return Path(*path.parts[:number])
    return path
