"""Versions come into service and leave it while requests are answered over real sockets."""

import asyncio
import contextlib
import json
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

from kfp_hybrid.errors import UserError
from kfp_hybrid.serving.admin import admin_server
from kfp_hybrid.serving.application import Application
from kfp_hybrid.serving.options import Options
from kfp_hybrid.serving.releases import Releases
from kfp_hybrid.serving.routing import Router
from kfp_hybrid.serving.servable import LiteRTServable
from kfp_hybrid.step import StepError

PREDICT = "/v1/models/sums:predict"


class Folder:
    """Published versions in a folder."""

    def __init__(self, path):
        self.path = path
        self.closed = []

    def latest(self):
        return (self.path / "LATEST").read_text().strip()

    def load(self, version):
        folder = self.path / version / "edge"
        if not folder.is_dir():
            raise StepError(f"there is no version {version}")
        servable = LiteRTServable(folder, "sums", version)

        def close():
            servable.predict = None  # whoever asks it now gets an error
            self.closed.append(version)

        servable.close = close
        return servable

    def forget(self, version):
        pass


@pytest.fixture
def folder(sums, tmp_path):
    for version in (1, 2, 3):
        sums.publish(tmp_path / "versions", version)
    sums.point_latest(tmp_path / "versions", 1)
    return Folder(tmp_path / "versions")


@contextlib.asynccontextmanager
async def serving(folder, follow=None):
    """A server of the versions in a folder, with its address for operators."""
    application = Application(Options(model=str(folder.path), name="sums"))
    router = application.router = Router(application.deploy(folder.load(folder.latest())))
    releases = Releases(folder, router, application.deploy)
    admin = admin_server(releases)
    port, admin_port = await application.http.listen("127.0.0.1", 0), await admin.listen("127.0.0.1", 0)
    task = asyncio.create_task(releases.follow(follow)) if follow else None
    try:
        yield SimpleNamespace(port=port, admin=admin_port, releases=releases, router=router, folder=folder)
    finally:
        if task:
            task.cancel()
        await application.http.drain(0, 1)
        await admin.drain(0, 1)


class Client:
    """One connection that is kept open."""

    def __init__(self, port):
        self._port = port

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *error):
        self._writer.close()

    async def request(self, method, path, body=None, **headers):
        data = b"" if body is None else json.dumps(body).encode()
        headers = {"host": "x", "content_length": len(data), "content_type": "application/json", **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{n.replace('_', '-')}: {value}" for n, value in headers.items())]
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + data)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return int(head[9:12]), json.loads(await self._reader.readexactly(length))


async def ask(port, method, path, body=None, **headers):
    async with Client(port) as client:
        return await client.request(method, path, body, **headers)


async def answering_version(server, sums, key="", x=5):
    body = {"instances": [{"x": x, "colour": "red"}]}
    return version_of(await ask(server.port, "POST", PREDICT, body, x_request_key=key), [x + 2])


def version_of(response, plain):
    """The one version of which the scores of an answer are."""
    status, answer = response
    assert status == 200, answer
    versions = {(score - x) / 1000 for score, x in zip(answer["predictions"], plain, strict=True)}
    assert len(versions) == 1
    (version,) = versions
    assert version.is_integer()
    return str(int(version))


async def until(condition):
    async with asyncio.timeout(120):
        while not condition():
            await asyncio.sleep(0.005)


def test_no_request_is_dropped_or_mixed_while_versions_come_and_go(sums, folder):
    """Constant load on 8 connections; LATEST moves through versions, and operators change their minds in between."""

    async def load(server, number, stop, answers):
        async with Client(server.port) as client:
            sent = 0
            while not stop.is_set():
                xs = [sent + number / 8, sent]
                body = {"instances": [{"x": x, "colour": "green"} for x in xs]}
                response = await client.request("POST", PREDICT, body, x_request_key=f"{number}-{sent}")
                answers.append(version_of(response, [x + 3 for x in xs]))
                sent += 1

    async def scenario():
        stop, answers = asyncio.Event(), []
        async with serving(folder, follow=0.01) as server, asyncio.TaskGroup() as clients:
            for number in range(8):
                clients.create_task(load(server, number, stop, answers))
            primary = lambda: server.router.routes.primary.version  # noqa: E731
            for version in range(4, 12):
                before = len(answers)
                sums.publish(folder.path, version)
                await until(lambda: primary() == str(version))
                await until(lambda: len(answers) > before + 50)
                if version % 3 == 0:
                    assert (await ask(server.admin, "POST", "/admin/rollback", {}))[0] == 200
                    assert (await ask(server.admin, "POST", "/admin/canary", {"version": 1, "percent": 30}))[0] == 200
            stop.set()
            await until(lambda: not server.releases._leaving)
            return Counter(answers), server.releases.failures

    counts, failures = asyncio.run(scenario())
    assert set(counts) == {"1", "4", "5", "6", "7", "8", "9", "10", "11"}
    assert failures == 0


def test_latest_is_followed_to_a_new_version_and_back_to_an_old_one(sums, folder):
    async def scenario():
        async with serving(folder, follow=0.01) as server:
            for version in ("3", "2", "1"):
                sums.point_latest(folder.path, version)
                await until(lambda: server.router.routes.primary.version == version)
                assert await answering_version(server, sums) == version

    asyncio.run(scenario())


def test_a_version_that_cannot_be_loaded_changes_nothing_and_the_next_one_is_taken(sums, folder, caplog):
    async def scenario():
        async with serving(folder, follow=0.01) as server:
            (folder.path / "4").mkdir()
            sums.point_latest(folder.path, 4)
            await until(lambda: server.releases.failures)
            assert await answering_version(server, sums) == "1"
            sums.point_latest(folder.path, 3)
            await until(lambda: server.router.routes.primary.version == "3")

    asyncio.run(scenario())
    assert "LATEST cannot be followed: there is no version 4; trying again" in caplog.text


def test_after_a_rollback_latest_is_passed_over_until_it_names_another_version(sums, folder):
    async def scenario():
        async with serving(folder, follow=0.01) as server:
            sums.point_latest(folder.path, 2)
            await until(lambda: server.router.routes.primary.version == "2")
            status, state = await ask(server.admin, "POST", "/admin/rollback", {})
            assert (status, state["primary"]["version"], state["passed_over"]) == (200, "1", "2")
            await asyncio.sleep(0.1)
            assert await answering_version(server, sums) == "1"
            sums.point_latest(folder.path, 3)
            await until(lambda: server.router.routes.primary.version == "3")

    asyncio.run(scenario())


def test_an_order_for_another_version_than_latest_lasts_until_latest_changes(sums, folder):
    async def scenario():
        async with serving(folder, follow=0.01) as server:
            sums.point_latest(folder.path, 2)
            await until(lambda: server.router.routes.primary.version == "2")
            for path, body, expected in [
                ("/admin/reload", {"version": "3"}, "3"),
                ("/admin/reload", {"version": "1"}, "1"),
                ("/admin/rollback", {}, "3"),
            ]:
                status, state = await ask(server.admin, "POST", path, body)
                await asyncio.sleep(0.05)
                assert (status, state["primary"]["version"]) == (200, expected)
                assert server.router.routes.primary.version == expected
            await server.releases.reload("1")
            sums.point_latest(folder.path, 3)
            await until(lambda: server.router.routes.primary.version == "3")

    asyncio.run(scenario())


def test_a_rollback_needs_nothing_from_the_store(sums, folder):
    async def scenario():
        async with serving(folder) as server:
            await server.releases.reload("2")
            for number in (1, 2):
                (folder.path / str(number)).rename(folder.path / f"gone-{number}")
            (folder.path / "LATEST").unlink()
            status, _ = await ask(server.admin, "POST", "/admin/rollback", {})
            assert (status, await answering_version(server, sums)) == (200, "1")

    asyncio.run(scenario())


def test_a_canary_is_sticky_by_key_and_can_be_promoted_or_ended(sums, folder):
    async def scenario():
        async with serving(folder) as server:
            assert (await ask(server.admin, "POST", "/admin/canary", {"version": 2, "percent": 40}))[0] == 200
            versions = {key: await answering_version(server, sums, key) for key in "abcdefghijklmnop"}
            assert set(versions.values()) == {"1", "2"}
            assert versions == {key: await answering_version(server, sums, key) for key in versions}
            assert (await ask(server.admin, "POST", "/admin/canary", {"percent": 0}))[0] == 200
            assert {await answering_version(server, sums, key) for key in versions} == {"1"}
            await ask(server.admin, "POST", "/admin/canary", {"version": "2", "percent": 1})
            status, state = await ask(server.admin, "POST", "/admin/promote", {})
            assert (status, state["primary"]["version"], state["candidate"]) == (200, "2", None)
            assert {await answering_version(server, sums, key) for key in versions} == {"2"}

    asyncio.run(scenario())


def test_a_version_is_closed_when_nothing_uses_it_any_more(folder):
    async def scenario():
        async with serving(folder) as server:
            await server.releases.reload("2")
            await server.releases.mirror("1", 100)
            await server.releases.reload("3")
            await until(lambda: not server.releases._leaving)
            assert folder.closed == []  # 2 is kept for a rollback, 1 is the shadow
            await server.releases.mirror("", 0)
            await until(lambda: folder.closed == ["1"])
            assert {d.version for d in server.router.routes.loaded()} == {"2", "3"}

    asyncio.run(scenario())


def test_a_request_that_is_under_way_when_its_version_leaves_is_answered_by_it(folder):
    async def scenario():
        async with serving(folder) as server:
            servable, go = server.router.routes.primary.servable, threading.Event()
            predict = servable.predict
            servable.predict = lambda columns: go.wait(120) and predict(columns)
            body = {"instances": [{"x": x, "colour": "red"} for x in range(300)]}  # so many are predicted in a thread
            answer = asyncio.create_task(ask(server.port, "POST", PREDICT, body))
            await until(lambda: server.router.routes.primary.batcher.queued_rows)
            await server.releases.reload("2")
            await server.releases.reload("3")
            await asyncio.sleep(0.05)
            assert folder.closed == []
            go.set()
            assert version_of(await answer, [x + 2 for x in range(300)]) == "1"
            await until(lambda: folder.closed == ["1"])

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "method, path, body, status, message",
    [
        ("POST", "/admin/rollback", {}, 409, "no version to go back to"),
        ("POST", "/admin/promote", {}, 409, "no canary to promote"),
        ("POST", "/admin/reload", {"version": "9"}, 409, "there is no version 9"),
        ("POST", "/admin/canary", {"version": "1", "percent": 5}, 409, "answers all requests already"),
        ("POST", "/admin/canary", {"version": "2", "percent": 101}, 409, "between 0 and 100"),
        ("POST", "/admin/canary", {"version": "2"}, 400, '"percent" must be a number'),
        ("POST", "/admin/shadow", {"percent": 5}, 400, '"version" must be a version'),
        ("POST", "/admin/reload", [], 400, "must be a JSON object"),
        ("GET", "/admin/reload", None, 405, "use POST"),
        ("POST", "/v1/models/sums:predict", {}, 404, "there is GET /admin/versions"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_changes_nothing_and_says_why(folder, method, path, body, status, message):
    async def scenario():
        async with serving(folder) as server:
            before = (await ask(server.admin, "GET", "/admin/versions"))[1]
            answer = await ask(server.admin, method, path, body)
            after = (await ask(server.admin, "GET", "/admin/versions"))[1]
            return answer, before, {**after, "failures": 0}

    (actual, answer), before, after = asyncio.run(scenario())
    assert actual == status
    assert message in answer["error"]
    assert before == after


def test_a_body_that_a_web_page_could_send_is_refused(folder):
    async def scenario():
        async with serving(folder) as server:
            return await ask(server.admin, "POST", "/admin/rollback", {}, content_type="text/plain")

    status, answer = asyncio.run(scenario())
    assert (status, answer["error"]) == (400, "send the header Content-Type: application/json")


def test_an_error_in_loading_is_told_in_one_line(folder, monkeypatch):
    monkeypatch.setattr(folder, "load", lambda version, load=folder.load: load(version) if version == "1" else 1 / 0)

    async def scenario():
        async with serving(folder) as server:
            with pytest.raises(UserError, match="version 2 cannot be loaded: division by zero; see the log"):
                await server.releases.reload("2")
            assert server.router.routes.primary.version == "1"

    asyncio.run(scenario())
