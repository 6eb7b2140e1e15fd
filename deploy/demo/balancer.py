"""Load balancers in a few lines, of requests and of connections. For the demo and its tests only."""

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

MAX_BODY_BYTES: Final = 16 * 2**20
NOT_PASSED_ON: Final = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
"""What each connection says for itself (RFC 9110, section 7.6.1)."""


class RoundRobin:
    """Each request goes to the next backend.

    Attributes:
        answered: How often each backend answered on each path, by ``(backend, path)``.
    """

    def __init__(self, backends: Sequence[str], http: aiohttp.ClientSession) -> None:
        self.answered: Counter[tuple[str, str]] = Counter()
        self._number = len(backends)
        self._turns = cycle(backends)
        self._http = http

    async def handle(self, request: web.Request) -> web.Response:
        """Pass a request on; a backend that cannot be reached is passed over."""
        body = await request.read()
        for _ in range(self._number):
            backend = next(self._turns)
            try:
                async with self._http.request(
                    request.method,
                    backend + request.raw_path,
                    data=io.BytesIO(body) if body else None,
                    headers=_passed_on(request.headers),
                    allow_redirects=False,
                ) as response:
                    self.answered[backend, request.path] += 1
                    return web.Response(
                        status=response.status,
                        body=await response.read(),
                        headers=_passed_on(response.headers),
                    )
            except aiohttp.ClientConnectorError:  # nothing was sent, so another may be tried
                continue
            except (aiohttp.ClientError, TimeoutError):
                break
        return web.Response(status=502)


@asynccontextmanager
async def balance(
    backends: Sequence[str], port: int, routes: Sequence[web.RouteDef] = ()
) -> AsyncIterator[RoundRobin]:
    """Listen on a port of loopback for as long as the context lasts.

    Args:
        routes: What is answered here.

    Raises:
        OSError: The port is taken.
    """
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
        robin = RoundRobin(backends, http)
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.add_routes(routes)
        app.router.add_route("*", "/{path:.*}", robin.handle)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
            yield robin
        finally:
            await runner.cleanup()


@asynccontextmanager
async def spread(targets: Sequence[int], port: int) -> AsyncIterator[None]:
    """Pass connections on, each to whichever port of loopback takes it and has the fewest.

    Raises:
        OSError: The port is taken.
    """
    connections: Counter[int] = Counter()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for target in sorted(targets, key=connections.__getitem__):
            try:
                from_there, to_there = await asyncio.open_connection("127.0.0.1", target)
            except OSError:
                continue
            connections[target] += 1
            ways = [
                asyncio.ensure_future(_pass_on(reader, to_there)),
                asyncio.ensure_future(_pass_on(from_there, writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            connections[target] -= 1
            to_there.close()
            break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


def _passed_on(headers: CIMultiDictProxy[str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in NOT_PASSED_ON]
