"""Opens and closes the two HTTP listeners, the public and the internal one."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import cast

import structlog
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from gateway.config.address import parse_address
from gateway.transport.arrival import Arrival
from gateway.transport.entrance import RETRY_AFTER_SECONDS
from gateway.transport.listener import BACKLOG, Descriptors, open_listener
from gateway.transport.upgrade import WebSocketTransport

REQUEST_SECONDS = 15
"""
How long a connection may wait before its request is whole, the first or the next. On the public listener the
first byte may take as long again.

aiohttp's default is an hour, for which a client that sends half a header would keep a descriptor.
"""

_NO_ROOM = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Retry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % RETRY_AFTER_SECONDS
)

_log = structlog.get_logger(__name__)


BadRequest = Callable[[web.BaseRequest, BaseException | None], web.Response]
"""Answers what could not be read as a request, of which only the peer's address is known, and the fault."""


class HttpListener:
    """A listener that is open.

    Args:
        runner: Of the application.
        servers: What takes connections in.
        arrivals: Connections that have not said yet what they are for.

    Attributes:
        manager: What aiohttp knows of its connections.
    """

    def __init__(
        self,
        runner: web.AppRunner,
        manager: web.Server,
        servers: Sequence[asyncio.Server],
        arrivals: set[Arrival],
    ) -> None:
        self.manager = manager
        self._runner = runner
        self._servers = servers
        self._arrivals = arrivals

    async def start(self) -> None:
        """Take connections, if it was opened without doing so."""
        for server in self._servers:
            await server.start_serving()

    def stop(self) -> None:
        """Take no new connections; those there are stay."""
        for server in self._servers:
            server.close()

    async def close(self) -> None:
        """Take no new connections, and end those there are."""
        self.stop()
        for arrival in self._arrivals:
            arrival.close()
        await self._runner.cleanup()


async def listen(
    app: web.Application,
    *listeners: socket.socket,
    descriptors: Descriptors | None,
    max_header_bytes: int,
    bad_request: BadRequest,
    sockets: WebSocketTransport | None = None,
    tls: ssl.SSLContext | None = None,
    at_once: bool = True,
) -> HttpListener:
    """Serve an application.

    Args:
        listeners: Listening sockets, of TCP or Unix; they are the server's from now on.
        descriptors: Those of clients, on the public listener; None on the internal one.
        sockets: Answers requests for a WebSocket, most of them without aiohttp; None where there are none.
        at_once: Whether to take connections before :meth:`HttpListener.start`.
    """
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    manager = runner.server
    assert manager is not None  # noqa: S101 -- it was set up just now

    arrivals: set[Arrival] = set()
    http = partial(_Connection, manager, bad_request, max_header_bytes, descriptors)

    def accepted() -> asyncio.Protocol:
        if descriptors is not None and descriptors.full:
            descriptors.refused()
            return _NoRoom()
        if descriptors is None or sockets is None:
            return http()
        return Arrival(
            sockets,
            arrivals,
            http,
            descriptors=descriptors,
            most=max_header_bytes,
            seconds=REQUEST_SECONDS,
        )

    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []
    for listener in listeners:
        create: Callable[..., Awaitable[asyncio.Server]] = (
            loop.create_unix_server if listener.family == socket.AF_UNIX else loop.create_server
        )
        servers.append(
            await create(accepted, sock=listener, ssl=tls, backlog=BACKLOG, start_serving=at_once)
        )
    return HttpListener(runner, manager, servers, arrivals)


def open_address(address: str, *, public: bool, reuse_port: bool = False) -> socket.socket:
    """The listening socket of a configured address.

    Raises:
        OSError: The address cannot be listened on.
    """
    listener = open_listener(*parse_address(address), reuse_port=reuse_port)
    _log.info("listening", address=address, public=public)
    return listener


class _NoRoom(asyncio.Protocol):
    """A connection that clients have no descriptor left for. Its request may never come, and is not read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = cast("asyncio.Transport", transport)  # uvloop's is none by its type
        client.write(_NO_ROOM)
        client.close()


class _Connection(web.RequestHandler):
    """An HTTP connection, on which what is no request is counted and answered plainly.

    aiohttp would name its version, and send back the bytes it could not read.
    """

    __slots__ = ("_bad_request", "_descriptors")

    def __init__(
        self,
        manager: web.Server,
        bad_request: BadRequest,
        max_header_bytes: int,
        descriptors: Descriptors | None,
    ) -> None:
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # as its own code has it
            keepalive_timeout=REQUEST_SECONDS,
            max_line_size=max_header_bytes,
            max_field_size=max_header_bytes,
            auto_decompress=descriptors
            is None,  # what anybody may send costs no more than its bytes
        )
        self._bad_request = bad_request
        self._descriptors = descriptors

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._descriptors is not None:
            self._descriptors.open += 1

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._descriptors is not None:
            self._descriptors.open -= 1
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp answers where no handler could."""
        if status != HTTPStatus.BAD_REQUEST:
            return super().handle_error(request, status, exc, message)
        return _Bare(self._bad_request(request, exc))


class _Bare(web.StreamResponse):
    """A whole answer without the header ``Server``, which closes the connection.

    No signal of the application comes for an answer to what is no request of its.
    """

    def __init__(self, answer: web.Response) -> None:
        super().__init__(status=answer.status, headers=answer.headers)
        self.force_close()
        self._content = answer.body if isinstance(answer.body, bytes) else b""
        self.headers[hdrs.CONTENT_LENGTH] = str(len(self._content))
        self.headers[hdrs.CONNECTION] = "close"

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Begin it."""
        self._writer = request.writer
        status_line = f"HTTP/1.1 {self.status} {self.reason}"
        await self._writer.write_headers(status_line, self.headers)
        return self._writer

    async def write_eof(self, data: bytes = b"") -> None:
        """End it."""
        await self._writer.write_eof(self._content + data)


def tls_context(certificate: str, key: str) -> ssl.SSLContext | None:
    """What the public listener encrypts with; None without a certificate."""
    if not certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def hide_server(_: web.Request, response: web.StreamResponse) -> None:
    """Versions of Python and aiohttp are nobody's business on the public port."""
    response.headers.popall("Server", None)
