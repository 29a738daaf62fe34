"""What the command line of the model server takes. A platform may give the same by environment variables."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from kfp_hybrid.cores import available_cores
from kfp_hybrid.engines import ENGINES
from kfp_hybrid.errors import UserError


@dataclass(frozen=True)
class Options:
    """The options.

    Attributes:
        model: a path or URI: an edge bundle, a SavedModel, a published version, or a directory of versions.
        name: the name in the URLs.
        version: the version to serve of a directory of versions; "" for the one that LATEST names.
        engine: what runs the model: auto, litert or tensorflow.
        host: the address to listen at.
        port: the port; 0 for a free one.
        port_file: a file that gets the port when the server listens; "" for none.
        max_batch_rows: rows of a batch.
        max_delay_ms: how long a request waits for others, milliseconds.
        queue_rows: rows that may wait.
        max_request_rows: rows of one request.
        max_body_bytes: bytes of the body of a request.
        max_connections: connections at the same time.
        timeout: seconds within which a request is answered, once it is there.
        read_timeout: seconds within which a request must arrive.
        idle_timeout: seconds after which an idle connection is ended.
        drain_delay: seconds for which connections are still taken after SIGTERM.
        drain_timeout: seconds after which connections are ended in any case.
        workers: batches that are computed in threads at the same time; 0 for one per core.
        ignore_unknown: drop features that the model does not know, instead of refusing the row.
        log_format: text or json.
        predict_route: a further path for predictions (Vertex AI).
        health_route: a further path for readiness (Vertex AI).
        follow: seconds between two looks at LATEST for another version; 0 for never.
        canary: percent of the requests that the version of --canary-version answers.
        canary_version: a version that gets a share of the requests.
        shadow: percent of the requests that the version of --shadow-version gets copies of.
        shadow_version: a version that gets copies of requests and never answers.
        admin_host: the address to listen at for operators.
        admin_port: the port for operators; 0 for none.
        grpc_port: the port for the Open Inference Protocol over gRPC; 0 for none.
        grpc_port_file: a file that gets the port for gRPC; with it, 0 is a free one.
        record: a folder or URI that requests and answers are recorded in; "" for none.
        record_percent: percent of the requests that are recorded.
        record_rows: rows of a file of recorded requests.
        record_seconds: seconds after which recorded requests are written, even if they are fewer.
        table: a path or URI of a prediction table to answer from.
        table_any_version: answer from the table also for versions that did not write it.
    """

    model: str
    name: str = "model"
    version: str = ""
    engine: str = "auto"
    host: str = "0.0.0.0"  # noqa: S104 - a server in a container is asked from outside
    port: int = 8080
    port_file: str = ""
    max_batch_rows: int = 1024
    max_delay_ms: float = 0.0
    queue_rows: int = 65536
    max_request_rows: int = 65536
    max_body_bytes: int = 32 << 20
    max_connections: int = 4096
    timeout: float = 30.0
    read_timeout: float = 30.0
    idle_timeout: float = 75.0
    drain_delay: float = 0.5
    drain_timeout: float = 30.0
    workers: int = 0
    ignore_unknown: bool = False
    log_format: str = "text"
    predict_route: str = ""
    health_route: str = ""
    follow: float = 0.0
    canary: float = 0.0
    canary_version: str = ""
    shadow: float = 0.0
    shadow_version: str = ""
    admin_host: str = "127.0.0.1"
    admin_port: int = 0
    grpc_port: int = 0
    grpc_port_file: str = ""
    record: str = ""
    record_percent: float = 100.0
    record_rows: int = 8192
    record_seconds: float = 60.0
    table: str = ""
    table_any_version: bool = False

    @property
    def cores(self) -> int:
        """Batches that are computed in threads at the same time."""
        return self.workers or available_cores()


_HELP = {
    name.strip(): text.strip().rstrip(".")
    for name, _, text in (line.partition(":") for line in (Options.__doc__ or "").splitlines() if line[:8] == " " * 8)
}
_VERTEX = {
    "AIP_STORAGE_URI": "model",
    "AIP_HTTP_PORT": "port",
    "AIP_PREDICT_ROUTE": "predict_route",
    "AIP_HEALTH_ROUTE": "health_route",
}
_POSITIVE = ("max_batch_rows", "queue_rows", "max_request_rows", "max_body_bytes", "max_connections", "timeout",
             "read_timeout", "idle_timeout", "record_rows", "record_seconds")  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line: the model, and an option for each other attribute of `Options`."""
    found = argparse.ArgumentParser(
        prog="python -m kfp_hybrid.serving",
        description="Serve a model over HTTP: TensorFlow Serving's REST, the Open Inference Protocol, Vertex AI.",
    )
    found.add_argument("model", nargs="?", default=argparse.SUPPRESS, help=_HELP["model"])
    for field in fields(Options):
        if field.name == "model":
            continue
        option = "--" + field.name.replace("_", "-")
        if field.type is bool:
            found.add_argument(option, action="store_true", default=argparse.SUPPRESS, help=_HELP[field.name])
        else:
            choices = {"engine": ENGINES, "log_format": ("text", "json")}.get(field.name)
            found.add_argument(
                option,
                type=field.type,  # type: ignore[arg-type]
                choices=choices,
                default=argparse.SUPPRESS,
                metavar=None if choices else field.name.rpartition("_")[2].upper(),
                help=f"{_HELP[field.name]} ({field.default if field.default != '' else 'none'})",
            )
    return found


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Options:
    """The options of a command line; what it leaves out, Vertex AI's variables may say.

    Raises:
        UserError: there is no model, or a value makes no sense.
        SystemExit: the command line has a form that argparse refuses.
    """
    given: dict[str, Any] = {
        option: environment[variable] for variable, option in _VERTEX.items() if environment.get(variable)
    }
    given.update(vars(parser().parse_args(arguments)))
    if not given.get("model"):
        raise UserError("there is no model to serve; give its folder or URI, or set AIP_STORAGE_URI")
    try:
        options = Options(**{**given, "port": int(given.get("port", Options.port))})
    except ValueError:
        raise UserError(f"the port is {given['port']!r}; it must be a number") from None
    if not 0 <= options.port < 65536:
        raise UserError(f"the port is {options.port}; it must be between 0 and 65535")
    for name in _POSITIVE:
        if not getattr(options, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be greater than 0")
    if "/" in options.name or not options.name:
        raise UserError(f"the name is {options.name!r}; it stands in URLs, so give one without a slash")
    return options
