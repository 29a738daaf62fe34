"""Brings versions of a model into service and out of it, while requests are answered.

A version is loaded and tried in a thread, beside those that answer. Then the router is told, which takes effect between
two requests. A version that is no longer needed is closed when its last request is answered. What cannot be loaded
changes nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from kfp_hybrid.errors import UserError
from kfp_hybrid.serving.routing import Deployed, Router, Routes, require_percent
from kfp_hybrid.serving.rows import sample_rows
from kfp_hybrid.serving.servable import Servable
from kfp_hybrid.serving.shadow import deploy_shadow

POLL_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 300.0  # between two attempts to load what cannot be loaded

log = logging.getLogger(__name__)


class Versions(Protocol):
    """The versions of a model that were published. Methods are called in threads; errors are `UserError`."""

    def latest(self) -> str:
        """The version that is to be used, as LATEST names it."""

    def load(self, version: str) -> Servable:
        """Load a version and try it with its samples."""

    def forget(self, version: str) -> None:
        """Remove what loading a version left on this machine."""


class Releases:
    """Changes which versions are in service. For the event loop alone; changes happen one after the other.

    Args:
        versions: what was published.
        router: what chooses the version for a request.
        deploy: gives a version what its requests wait in.
        watch: told of each version that comes into service.

    Attributes:
        loads: versions that were loaded since the start.
        failures: attempts to load one that failed.
    """

    def __init__(
        self,
        versions: Versions,
        router: Router,
        deploy: Callable[[Servable], Deployed],
        watch: Callable[[Deployed], None] = lambda deployed: None,
    ) -> None:
        self.loads = 0
        self.failures = 0
        self._versions = versions
        self._router = router
        self._deploy = deploy
        self._watch = watch
        self._change = asyncio.Lock()
        self._follows = False
        self._passed_over = ""  # what LATEST named when somebody chose another version
        self._leaving: set[asyncio.Task[None]] = set()

    async def reload(self, version: str = "") -> None:
        """Put a version in the place of the primary.

        Args:
            version: the version; "" for the one that LATEST names. If it is another, LATEST is not followed until it
                names a version that it does not name now.

        Raises:
            UserError: it cannot be loaded; nothing has changed.
        """
        async with self._change:
            latest = await self._latest() if not version or self._follows else ""
            await self._switch(version or latest)
            self._passed_over = latest if version and version != latest else ""

    async def rollback(self) -> None:
        """Put the version before in the place of the primary, at once: it is still loaded. A canary ends.

        LATEST is not followed until it names a version that it does not name now.

        Raises:
            UserError: there is no version before.
        """
        async with self._change:
            before = self._router.routes
            self._router.rollback()
            self._changed("rolled back", before)
            self._passed_over = self._passed_over or before.primary.version

    async def canary(self, version: str, percent: float) -> None:
        """Give a version a share of the requests; 0 percent ends the canary.

        Raises:
            UserError: it cannot be loaded, is primary already, or percent is no percentage.
        """
        require_percent(percent)
        async with self._change:
            before = self._router.routes
            if percent and version == before.primary.version:
                raise UserError(f"version {version} answers all requests already; give another version")
            self._router.canary(await self._deployed(version) if percent else None, percent)
            self._changed("canary", before)

    async def promote(self) -> None:
        """Put the candidate of the canary in the place of the primary.

        Raises:
            UserError: there is no candidate.
        """
        async with self._change:
            candidate = self._router.routes.candidate
            if candidate is None:
                raise UserError("there is no canary to promote; start one with a version and a percentage")
            latest = await self._latest() if self._follows else ""
            await self._switch(candidate.version)
            self._passed_over = latest if candidate.version != latest else ""

    async def mirror(self, version: str, percent: float) -> None:
        """Send copies of a share of the requests to a version that never answers; 0 percent ends it.

        Raises:
            UserError: it cannot be loaded, or percent is no percentage.
        """
        require_percent(percent)
        async with self._change:
            before = self._router.routes
            self._router.mirror(await self._deployed(version, as_shadow=True) if percent else None, percent)
            self._changed("shadow", before)

    async def follow(self, seconds: float = POLL_SECONDS) -> None:
        """Take whatever version LATEST comes to name, until cancelled. What fails is logged and tried again.

        Args:
            seconds: from one look at LATEST to the next.
        """
        self._follows = True
        pause = seconds
        while True:
            await asyncio.sleep(pause)
            try:
                async with self._change:
                    latest = await self._latest()
                    if latest not in (self._router.routes.primary.version, self._passed_over):
                        await self._switch(latest)
                        self._passed_over = ""
                pause = seconds
            except UserError as error:
                pause = min(2 * pause, max(seconds, LONGEST_PAUSE_SECONDS))
                log.error("LATEST cannot be followed: %s; trying again in %.0f s", error, pause)

    def state(self) -> dict[str, Any]:
        """What is in service, for people and JSON."""
        routes = self._router.routes
        return {
            "primary": _described(routes.primary),
            "candidate": _described(routes.candidate, percent=routes.percent),
            "shadow": _described(routes.shadow, percent=routes.shadow_percent),
            "previous": _described(routes.previous),
            "leaving": len(self._leaving),
            "passed_over": self._passed_over or None,
            "loads": self.loads,
            "failures": self.failures,
        }

    async def _switch(self, version: str) -> None:
        before = self._router.routes
        if version != before.primary.version:
            self._router.switch(await self._deployed(version))
            self._changed("switched", before)

    async def _latest(self) -> str:
        try:
            latest = await asyncio.to_thread(self._versions.latest)
        except UserError:
            self.failures += 1
            raise
        if not latest:
            raise UserError("the model is no directory of versions, so there is no other version to serve")
        return latest

    async def _deployed(self, version: str, as_shadow: bool = False) -> Deployed:
        """A version that is ready to answer: one that is in service, or a new one.

        Args:
            version: the version.
            as_shadow: with a batcher for what nobody waits for.
        """
        routes = self._router.routes
        known = [deployed for deployed in routes.loaded() if deployed.version == version]
        if not as_shadow and (fit := [deployed for deployed in known if deployed is not routes.shadow]):
            return fit[0]
        servable = known[0].servable if known else await self._load(version)
        deployed = deploy_shadow(servable) if as_shadow else self._deploy(servable)
        await deployed.batcher.submit(sample_rows(servable))  # where requests are predicted, each thread warms up
        self._watch(deployed)
        return deployed

    async def _load(self, version: str) -> Servable:
        started = time.monotonic()
        try:
            servable = await asyncio.to_thread(self._versions.load, version)
        except UserError:
            self.failures += 1
            raise
        except Exception as error:
            self.failures += 1
            log.exception("loading version %s failed", version)
            raise UserError(f"version {version} cannot be loaded: {error}; see the log of the server") from error
        self.loads += 1
        log.info("loaded version %s in %.2f s", version, time.monotonic() - started)
        return servable

    def _changed(self, what: str, before: Routes) -> None:
        routes = self._router.routes
        log.info(
            "%s: primary %s, candidate %s (%g %%), shadow %s (%g %%)",
            *(what, routes.primary.version, _version(routes.candidate), routes.percent),
            *(_version(routes.shadow), routes.shadow_percent),
        )
        in_service = routes.loaded()
        for deployed in before.loaded():
            if deployed not in in_service:
                task = asyncio.get_running_loop().create_task(self._close(deployed))
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)

    async def _close(self, deployed: Deployed) -> None:
        """Let go of a version when its last request is answered."""
        await deployed.batcher.drain()
        deployed.batcher.close()
        async with self._change:
            loaded = self._router.routes.loaded()
            if deployed.servable in [other.servable for other in loaded]:
                return
            deployed.servable.close()
            if deployed.version not in [other.version for other in loaded]:
                await asyncio.to_thread(self._versions.forget, deployed.version)
        log.info("closed version %s", deployed.version)


def _described(deployed: Deployed | None, **more: float) -> dict[str, Any] | None:
    if deployed is None:
        return None
    servable = deployed.servable
    return {"version": servable.version, "sha256": servable.sha256, "engine": servable.engine, **more}


def _version(deployed: Deployed | None) -> str:
    return deployed.version if deployed else "none"
