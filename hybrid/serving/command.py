"""The model server as a process: it listens, loads, becomes ready, and answers until it is told to end."""

import asyncio
import gc
import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from kfp_hybrid.errors import UserError
from kfp_hybrid.serving import options as command_line
from kfp_hybrid.serving.application import Application
from kfp_hybrid.serving.loading import ModelSource
from kfp_hybrid.serving.operations import Operations
from kfp_hybrid.serving.options import Options
from kfp_hybrid.serving.port_file import write_port

log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """A log line as a JSON object, with the names that log collectors look for."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{when}.{int(record.msecs):03}Z",
            "severity": record.levelname,
            "message": record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def main(arguments: Sequence[str]) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        The exit status: 0 after a drained end, 1 after an error, which is written in one line.
    """
    try:
        options = command_line.read(arguments)
        _configure_logging(options.log_format)
        uvloop.run(serve(options))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


async def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UserError: it cannot listen, or the model cannot be served.
    """
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    application = Application(options)
    port = await _listen(application, options)
    source = ModelSource(options.model, options.name, options.engine)
    operations = Operations(application, source)
    loading = asyncio.ensure_future(_load(options, source, operations))
    ended = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait([loading, ended], return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            await loading
            gc.collect()
            gc.freeze()  # what is loaded stays: looking through it again and again would hold up requests
            log.info("ready: model %s on port %d", options.name, port)
            await ended
        log.info("ending: answering what was accepted")
        await application.http.drain(options.drain_delay if loading.done() else 0.0, options.drain_timeout)
    finally:
        for task in (loading, ended):
            task.cancel()
        await operations.stop()
    log.info("ended")


async def _listen(application: Application, options: Options) -> int:
    try:
        port = await application.http.listen(options.host, options.port)
    except OSError as error:
        raise UserError(
            f"cannot listen at {options.host}:{options.port}: {error.strerror or error}; choose another --port"
        ) from None
    if options.port_file:
        write_port(Path(options.port_file), port)
    log.info("listening at %s:%d", options.host, port)
    return port


async def _load(options: Options, source: ModelSource, operations: Operations) -> None:
    """Load the model in a thread, so that the server can already say that it lives."""
    await operations.start(await asyncio.to_thread(source.load, options.version))


def _configure_logging(form: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
