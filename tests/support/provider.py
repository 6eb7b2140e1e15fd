"""An identity provider on loopback, with keys that a test changes and answers as bad as a test wants."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class IdentityProvider:
    """A server with one address, the key set's.

    Attributes:
        keys: What it publishes.
        requests: Headers of all requests so far.
        handler: Answers instead, unless it is None.
        gate: While it is not set, nothing is answered.
    """

    def __init__(self, *keys: Any) -> None:
        self.keys = list(keys)
        self.requests: list[dict[str, str]] = []
        self.handler: Handler | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Address of the key set."""
        return f"http://127.0.0.1:{self._port}/keys"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.add_routes([web.get("/{path:.*}", self._serve)])
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.gate.set()
        assert self._runner is not None
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(dict(request.headers))
        await self.gate.wait()
        if self.handler is not None:
            return await self.handler(request)
        return web.json_response({"keys": self.keys})


async def huge(request: web.Request) -> web.StreamResponse:
    """An answer that does not end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" " * 65_536)


async def dripping(request: web.Request) -> web.StreamResponse:
    """An answer that comes byte by byte and does not end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.1)


async def garbage(_: web.Request) -> web.StreamResponse:
    """The page of a captive portal."""
    return web.Response(text="<html>please log in</html>", content_type="text/html")


async def failing(_: web.Request) -> web.StreamResponse:
    """Down for maintenance."""
    return web.Response(status=503, text="hunter2")


async def redirecting(request: web.Request) -> web.StreamResponse:
    """Keys elsewhere."""
    return web.Response(status=302, headers={"Location": f"http://{request.host}/elsewhere"})


async def cut(request: web.Request) -> web.StreamResponse:
    """An answer whose connection ends too soon."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"keys": [')
    assert request.transport is not None
    request.transport.abort()
    return response
