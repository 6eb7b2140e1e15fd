"""How ``live.js`` and what it imports are served, and that nobody keeps a connection by not reading them."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from gateway import live
from tests.support.ports import free_port
from tests.support.waiting import eventually


@pytest.fixture
async def runner() -> AsyncIterator[web.AppRunner]:
    application = web.Application()
    application.add_routes([*live.routes(), *live.routes("/console")])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", free_port()).start()
    yield runner
    await runner.cleanup()


@pytest.fixture
async def http(runner: web.AppRunner) -> AsyncIterator[aiohttp.ClientSession]:
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", auto_decompress=False, skip_auto_headers=["Accept-Encoding"]
    ) as session:
        yield session


@pytest.mark.parametrize("name", live.NAMES)
@pytest.mark.parametrize("prefix", ["/", "/console/"])
async def test_pages_of_all_origins_may_import_it(
    http: aiohttp.ClientSession, name: str, prefix: str
) -> None:
    async with http.get(f"{prefix}{name}") as answer:
        assert (answer.status, await answer.read()) == (200, live.source(name))
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["Cache-Control"] == "public, max-age=300"


async def test_it_is_compressed_for_who_can_read_that(http: aiohttp.ClientSession) -> None:
    async with http.get("/live.js", headers={"Accept-Encoding": "gzip"}) as answer:
        assert gzip.decompress(await answer.read()) == live.source("live.js")
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_who_has_it_is_told_so(http: aiohttp.ClientSession, encoding: str) -> None:
    async with http.head("/live.js") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    known = {"If-None-Match": f'"another", {answer.headers["ETag"]}', "Accept-Encoding": encoding}
    async with http.get("/live.js", headers=known) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with http.get("/live.js", headers={"If-None-Match": '"another"'}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_it_is_there_to_be_read(http: aiohttp.ClientSession, method: str) -> None:
    async with http.request(method, "/live.js") as answer:
        assert answer.status == 405


async def test_who_does_not_read_it_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, runner: web.AppRunner
) -> None:
    monkeypatch.setattr(live, "SEND_SECONDS", 0.05)
    asked = b"GET /phoenix.mjs HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    server = runner.server
    assert server is not None
    _, writer = await asyncio.open_connection(*runner.addresses[0], limit=1)
    writer.write(asked)  # for far more than the kernel holds
    await eventually(lambda: len(server.connections) == 1)

    await eventually(lambda: not server.connections)
    writer.close()
