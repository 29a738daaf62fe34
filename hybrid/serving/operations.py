"""What stands around the answers of a model server: metrics, versions that come and go, operators, tables."""

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from kfp_hybrid.errors import UserError
from kfp_hybrid.serving import metrics
from kfp_hybrid.serving.application import Application
from kfp_hybrid.serving.http import Exchange, HttpServer
from kfp_hybrid.serving.loading import ModelSource
from kfp_hybrid.serving.metrics import Metrics
from kfp_hybrid.serving.port_file import write_port
from kfp_hybrid.serving.recording import Limits, Recorder
from kfp_hybrid.serving.releases import Releases
from kfp_hybrid.serving.routing import Deployed, Router
from kfp_hybrid.serving.rows import sample_rows
from kfp_hybrid.serving.servable import Servable
from kfp_hybrid.serving.shadow import Shadow

RECORD_SECONDS = 10.0  # at the end, for what is not written yet

log = logging.getLogger(__name__)


class Operations:
    """Starts what the options ask for around an application, and ends it.

    Args:
        application: what answers.
        source: where versions of the model come from.
    """

    def __init__(self, application: Application, source: ModelSource) -> None:
        self._application = application
        self._options = application.options
        self._source = source
        self._tasks: set[asyncio.Task[None]] = set()
        self._admin: HttpServer | None = None
        self._grpc: Any = None
        self._recorder: Recorder | None = None
        self._end = contextlib.ExitStack()
        self._answers: Any = None  # of a table

    async def start(self, servable: Servable) -> None:
        """Put the first version into service, and start what the options ask for beside it.

        Raises:
            UserError: one of these cannot be.
        """
        options = self._options
        if options.follow and not options.version and not await asyncio.to_thread(self._source.latest):
            raise UserError(f"{options.model} is no directory of versions, so there is no LATEST; leave --follow out")
        for name in ("canary", "shadow"):
            version, percent = getattr(options, f"{name}_version"), getattr(options, name)
            if bool(version) != (percent > 0):
                raise UserError(f"--{name} is {percent:g} and --{name}-version is {version!r}; give both or none")
        if options.table:
            await asyncio.to_thread(self._open_table)
        first = self._deploy(servable)
        await first.batcher.submit(sample_rows(servable))  # where requests are predicted, each thread warms up
        router = Router(first)
        self._metrics = Metrics(options.name, router)
        releases = Releases(self._source, router, self._deploy, self._metrics.watch)
        self._metrics.watch(first)
        self._start_metrics(router, releases)
        if options.record:
            await asyncio.to_thread(self._start_recording, router)
        if options.canary_version:
            await releases.canary(options.canary_version, options.canary)
        if options.shadow_version:
            await releases.mirror(options.shadow_version, options.shadow)
        if options.admin_port:
            await self._listen_to_operators(releases)
        if options.grpc_port or options.grpc_port_file:
            from kfp_hybrid.serving import grpc_v2

            self._grpc, port = await grpc_v2.listen(self._application, options.host, options.grpc_port)
            log.info("listening for gRPC at %s:%d", options.host, port)
            if options.grpc_port_file:
                write_port(Path(options.grpc_port_file), port)
        self._application.router = router
        if options.follow and not options.version:
            self._run(releases.follow(options.follow))

    async def stop(self) -> None:
        """End what was started."""
        for task in self._tasks:
            task.cancel()
        if self._admin is not None:
            await self._admin.drain(0, 1)
        if self._grpc is not None:
            await self._grpc.stop(self._options.drain_timeout)
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close, RECORD_SECONDS)
        self._end.close()

    def _deploy(self, servable: Servable) -> Deployed:
        deployed = self._application.deploy(servable)
        if self._answers is not None:
            from kfp_hybrid.serving.table import TableReader

            deployed.batcher.reader = TableReader(deployed.batcher.reader, self._answers, servable)
        return deployed

    def _open_table(self) -> None:
        from kfp_hybrid import storage
        from kfp_hybrid.serving.table import TableAnswers

        place = Path(self._options.table)
        if storage.is_uri(self._options.table):
            place = Path(tempfile.mkdtemp(prefix="kfp-hybrid-table-"))
            self._end.callback(shutil.rmtree, place, ignore_errors=True)
            storage.download(f"{self._options.table.rstrip('/')}/", place)
        self._answers = TableAnswers.open(place, self._options.table_any_version)

    def _start_metrics(self, router: Router, releases: Releases) -> None:
        counted = self._metrics
        shadow = Shadow(router)
        router.observers += [counted.observe, shadow.observe]
        self._application.on_error.append(counted.error)
        counted.expose("counter", "loads", "Versions that were loaded after the first.", lambda: releases.loads)
        counted.expose("counter", "load_failures", "Versions that could not be loaded.", lambda: releases.failures)
        results = ("compared", "different", "flipped", "shed", "failed")
        counted.expose(
            "counter",
            "shadow_rows",
            "Rows that the shadow got, by what came of them.",
            lambda: dict(zip([(result,) for result in results], shadow.counts(), strict=True)),
            ["result"],
        )
        counted.expose("gauge", "shadow_largest_difference", "Largest difference of a score.", lambda: shadow.largest)
        if answers := self._answers:
            found = [("hit",), ("miss",)]
            counted.expose(
                "counter",
                "table_rows",
                "Rows with the keys of the table.",
                lambda: dict(zip(found, (answers.hits, answers.misses), strict=True)),
                ["found"],
            )

        def respond(exchange: Exchange) -> None:
            exchange.respond(200, counted.render(), metrics.CONTENT_TYPE)

        self._application.routes["GET", "/metrics"] = respond

    def _start_recording(self, router: Router) -> None:
        from kfp_hybrid.serving.recorded import Recorded

        options = self._options
        limits = Limits(options.record_percent, options.record_rows, options.record_seconds, 4 * options.record_rows)
        recorder = self._recorder = Recorder(Recorded(options.record, options.name), limits)
        recorder.start()
        router.observers.append(recorder.observe)
        self._metrics.expose(
            "counter",
            "recorded_rows",
            "Rows of recorded requests, by what came of them.",
            lambda: {(result,): rows for result, rows in recorder.rows.items()},
            ["result"],
        )
        self._metrics.expose(
            "counter", "record_failures", "Attempts to write recorded requests that failed.", lambda: recorder.failures
        )

    async def _listen_to_operators(self, releases: Releases) -> None:
        from kfp_hybrid.serving.admin import admin_server

        host, port = self._options.admin_host, self._options.admin_port
        self._admin = admin_server(releases)
        try:
            await self._admin.listen(host, port)
        except OSError as error:
            raise UserError(
                f"cannot listen to operators at {host}:{port}: {error.strerror or error}; choose another --admin-port"
            ) from None
        log.info("listening to operators at %s:%d", host, port)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
