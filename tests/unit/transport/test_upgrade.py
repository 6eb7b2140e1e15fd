"""A connection that goes from aiohttp to a socket: nothing is lost on the way, and nothing kept."""

import asyncio
import gc
import ssl
from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiohttp import web

from gateway.app import listeners
from gateway.app.listeners import listen, open_address, tls_context
from gateway.transport import upgrade
from gateway.transport.framing import CLOSE, TEXT, close_frame, frame
from gateway.transport.handshake import Refused
from tests.support.certificate import write_certificate
from tests.support.ports import free_port
from tests.support.waiting import eventually
from tests.unit.transport.shell import (
    MOST_DESCRIPTORS,
    PING,
    PONG,
    FakeConnection,
    FakeReplica,
    client_close,
    client_frame,
)

HANDSHAKE = (
    b"GET /socket/websocket HTTP/1.1\r\nHost: localhost\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
ACCEPT = b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
"""The example of RFC 6455 section 1.3."""


class Server:
    """A server with nothing but the WebSocket transport, and its clients' sockets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, plain: bool) -> None:
        self.plain = plain
        self.asked = 0
        self.failure: Exception | None = None
        self.replica: Any = FakeReplica()
        self.replica.limits.idle_timeout_seconds = 60
        self.connections: list[FakeConnection] = []
        self.extension = ""
        self.open = asyncio.Event()
        self.open.set()
        monkeypatch.setattr(upgrade, "Connection", self._connection)
        entrance: Any = self
        replica: Any = self.replica
        handshake: Any = SimpleNamespace(websocket=None)
        self.transport = upgrade.WebSocketTransport(
            replica, replica, handshake, entrance, self.replica.descriptors
        )

    def _connection(self, _: object, transport: Any, *__: object, **___: object) -> FakeConnection:
        connection = FakeConnection(transport)
        self.connections.append(connection)
        return connection

    async def turn(self) -> None:
        """The entrance's."""

    async def admit(self, *_: object) -> tuple[str, Any]:
        """The entrance's."""
        self.asked += 1
        await self.open.wait()
        if self.failure is not None:
            raise self.failure
        return "s1", SimpleNamespace(
            encoding=None, claims=None, state=None, subprotocol="phoenix", extension=self.extension
        )

    def refused(self, *_: object) -> dict[str, str]:
        """The entrance's."""
        return {"Retry-After": "5"}

    def welcome(self, *_: object) -> None:
        """The entrance's."""

    async def start(self, tls: ssl.SSLContext | None) -> None:
        """Listen."""
        app = web.Application()
        app.add_routes(self.transport.routes())
        self.port = free_port()
        self.listener = await listen(
            app,
            open_address(f"127.0.0.1:{self.port}", public=True),
            descriptors=self.replica.descriptors,
            max_header_bytes=16_384,
            bad_request=lambda *_: web.Response(status=400),
            sockets=self.transport if self.plain else None,
            tls=tls,
        )

    @property
    def of_aiohttp(self) -> web.Server:
        """What aiohttp knows of its connections."""
        return self.listener.manager


class Client:
    """The other end, on streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def switched(self) -> bytes:
        """The answer to the handshake."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def says(self, *expected: bytes) -> None:
        """Wait for exactly these bytes."""
        wanted = b"".join(expected)
        assert await self.reader.readexactly(len(wanted)) == wanted


Play = Callable[[Server, Callable[[], Coroutine[None, None, Client]]], Coroutine[None, None, None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Each kind of event loop."""
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture(params=["tcp", "tls", "aiohttp"])
def perform(
    request: pytest.FixtureRequest,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Callable[[Play], None]:
    """Plays a test with a server, and a function that connects to it.

    Encrypted or not, and with all requests read by aiohttp.
    """
    plain = request.param != "aiohttp"
    inside = outside = None
    if request.param == "tls":
        certificate, key = write_certificate(tmp_path)
        inside = tls_context(str(certificate), str(key))
        outside = ssl.create_default_context(cafile=certificate)

    async def connect(server: Server) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", server.port, ssl=outside))

    async def main(play: Play) -> None:
        server = Server(monkeypatch, plain=plain)
        await server.start(inside)
        await play(server, partial(connect, server))
        await server.listener.close()

    def run(play: Play) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(main(play))

    return run


def test_what_comes_right_behind_the_handshake_is_not_lost(
    perform: Callable[[Play], None],
) -> None:
    async def play(server: Server, connect: Any) -> None:
        client = await connect()
        client.writer.write(HANDSHAKE + client_frame(PING, b"1") + client_frame(TEXT, b"a")[:3])
        answer = await client.switched()
        await client.says(frame(PONG, b"1"))
        client.writer.write(client_frame(TEXT, b"a")[3:] + client_frame(PING, b"2"))
        await client.says(frame(PONG, b"2"))

        assert answer.startswith(b"HTTP/1.1 101 ")
        assert ACCEPT in answer
        assert b"Sec-WebSocket-Protocol: phoenix\r\n" in answer
        assert server.connections[0].messages == ["a"]
        client.writer.close()

    perform(play)


def test_the_answer_says_which_extension_was_agreed_and_then_it_is_read(
    perform: Callable[[Play], None],
) -> None:
    hello = bytes.fromhex("f248cdc9c90700")  # RFC 7692 section 7.2.3.1

    async def play(server: Server, connect: Any) -> None:
        server.extension = "permessage-deflate"
        client = await connect()
        client.writer.write(HANDSHAKE + client_frame(TEXT, hello, reserved=4) + client_frame(PING))

        assert b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n" in await client.switched()
        await client.says(frame(PONG, b""))
        assert server.connections[0].messages == ["Hello"]
        client.writer.close()

    perform(play)


def test_what_comes_while_the_handshake_waits_is_not_lost(
    perform: Callable[[Play], None],
) -> None:
    """More than aiohttp keeps, so that it stops reading until then."""

    async def play(server: Server, connect: Any) -> None:
        server.open.clear()
        client = await connect()
        client.writer.write(HANDSHAKE + client_frame(TEXT, b"x" * 900) * 1000)
        client.writer.write(client_frame(PING))
        await eventually(lambda: bool(server.asked))
        server.open.set()
        await client.switched()
        await client.says(frame(PONG, b""))

        assert server.connections[0].messages == ["x" * 900] * 1000
        client.writer.close()

    perform(play)


def test_a_refused_client_may_ask_again_on_its_connection(perform: Callable[[Play], None]) -> None:
    async def play(server: Server, connect: Any) -> None:
        server.failure = Refused(503, "draining")
        client = await connect()
        client.writer.write(HANDSHAKE)
        head = await client.switched()
        assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert {b"Retry-After: 5", b"Content-Length: 0"} <= set(head.split(b"\r\n"))
        client.writer.write(HANDSHAKE + b"GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.switched()).startswith(b"HTTP/1.1 503 ")
        assert (await client.switched()).startswith(b"HTTP/1.1 404 ")
        assert server.replica.descriptors.open == 1
        client.writer.close()
        await eventually(lambda: not server.replica.descriptors.open)

    perform(play)


def test_a_handshake_in_pieces(perform: Callable[[Play], None]) -> None:
    async def play(server: Server, connect: Any) -> None:
        client = await connect()
        client.writer.write(HANDSHAKE[:50])
        await eventually(lambda: bool(server.of_aiohttp.connections))
        client.writer.write(HANDSHAKE[50:] + client_frame(PING))
        await client.switched()
        await client.says(frame(PONG, b""))
        client.writer.close()

    perform(play)


def test_a_handshake_that_crashes_is_answered(perform: Callable[[Play], None]) -> None:
    async def play(server: Server, connect: Any) -> None:
        server.failure = RuntimeError("a bug")
        client = await connect()
        client.writer.write(HANDSHAKE)
        assert (await client.switched()).startswith(b"HTTP/1.1 500 ")
        client.writer.close()
        await eventually(lambda: not server.replica.descriptors.open)

    perform(play)


def test_a_client_that_goes_away_meanwhile(perform: Callable[[Play], None]) -> None:
    async def play(server: Server, connect: Any) -> None:
        server.open.clear()
        client = await connect()
        client.writer.write(HANDSHAKE)
        await eventually(lambda: bool(server.asked))
        client.writer.close()
        await eventually(lambda: not server.replica.descriptors.open)
        server.open.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert server.connections == []

    perform(play)


def test_who_says_nothing_is_closed(
    perform: Callable[[Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "REQUEST_SECONDS", 0.1)

    async def play(server: Server, connect: Any) -> None:
        client = await connect()
        assert await client.reader.read() == b""
        client.writer.close()
        await eventually(lambda: not server.replica.descriptors.open)

    perform(play)


def test_who_says_nothing_does_not_outlive_the_server(perform: Callable[[Play], None]) -> None:
    async def play(server: Server, connect: Any) -> None:
        client = await connect()
        await eventually(lambda: server.replica.descriptors.open == 1)
        await server.listener.close()
        assert await client.reader.read() == b""
        client.writer.close()

    perform(play)


def test_aiohttp_keeps_nothing_of_an_open_socket(perform: Callable[[Play], None]) -> None:
    async def play(server: Server, connect: Any) -> None:
        tasks = asyncio.all_tasks()
        gc.collect()
        gc.freeze()  # what is there already is not looked at
        gc.disable()  # nothing of it shall wait for the collector
        try:
            clients = [await connect() for _ in range(10)]
            for client in clients:
                client.writer.write(HANDSHAKE + client_frame(PING))
                await client.switched()
                await client.says(frame(PONG, b""))
            await eventually(lambda: not server.of_aiohttp.connections)
            grown = Counter(map(type, gc.get_objects()))
        finally:
            gc.enable()
            gc.unfreeze()

        assert asyncio.all_tasks() == tasks
        assert [
            kind for kind in grown if kind.__module__.startswith("aiohttp") and grown[kind] > 1
        ] == []
        assert {kind.__name__ for kind in grown if grown[kind] >= len(clients)} >= {"WebSocket"}
        for client in clients:
            client.writer.close()
        await eventually(lambda: len(server.replica.removed) == len(clients))

    perform(play)


@pytest.mark.parametrize("path", [b"/socket/websocket/", b"/socket//websocket"])
def test_slashes_make_no_difference(perform: Callable[[Play], None], path: bytes) -> None:
    async def play(server: Server, connect: Any) -> None:
        client = await connect()
        client.writer.write(HANDSHAKE.replace(b"/socket/websocket", path))
        assert b" 101 " in await client.switched()
        server.connections[0].transport.abort()  # type: ignore[attr-defined]
        await eventually(lambda: server.replica.removed == server.connections)
        client.writer.close()

    perform(play)


def test_a_client_that_would_take_another_protocol_too(perform: Callable[[Play], None]) -> None:
    """To aiohttp such a request is none to switch."""

    async def play(server: Server, connect: Any) -> None:
        client = await connect()
        client.writer.write(HANDSHAKE.replace(b"websocket\r\n", b"websocket, h2c\r\n", 1))
        await client.switched()
        client.writer.write(client_frame(TEXT, b"a") + client_frame(PING))
        await client.says(frame(PONG, b""))
        assert server.connections[0].messages == ["a"]
        client.writer.close()

    perform(play)


def test_a_server_that_stops_neither_waits_for_open_sockets_nor_cuts_them(
    perform: Callable[[Play], None],
) -> None:
    async def play(server: Server, connect: Any) -> None:
        client = await connect()
        client.writer.write(HANDSHAKE)
        await client.switched()
        await server.listener.close()
        client.writer.write(client_frame(TEXT, b"still there") + client_frame(PING))
        await client.says(frame(PONG, b""))
        assert server.connections[0].messages == ["still there"]
        server.connections[0].transport.abort()  # type: ignore[attr-defined]

        await eventually(lambda: server.replica.removed == server.connections)
        assert server.replica.disconnects() == {"1006": 1}
        client.writer.close()

    perform(play)


@pytest.mark.parametrize(
    ("end", "said", "code"),
    [
        (client_close(4000), close_frame(1000), "other"),
        (client_frame(CLOSE), close_frame(1000), "1005"),
        (None, b"", "1006"),
    ],
    ids=["close", "no code", "gone"],
)
def test_the_end_of_a_connection_reaches_its_socket(
    perform: Callable[[Play], None], end: bytes | None, said: bytes, code: str
) -> None:
    async def play(server: Server, connect: Any) -> None:
        client = await connect()
        client.writer.write(HANDSHAKE)
        await client.switched()
        if end is None:
            client.writer.close()
        else:
            client.writer.write(end)
            assert await client.reader.read() == said
        await eventually(lambda: server.replica.removed == server.connections)

        assert server.replica.disconnects() == {code: 1}
        client.writer.close()

    perform(play)


def test_a_connection_counts_from_its_first_byte_to_its_last_whoever_has_it(
    perform: Callable[[Play], None],
) -> None:
    async def play(server: Server, connect: Any) -> None:
        descriptors = server.replica.descriptors
        clients = [await connect() for _ in range(MOST_DESCRIPTORS)]
        await eventually(lambda: descriptors.full)
        for client in clients[1:]:
            client.writer.write(HANDSHAKE)
            await client.switched()
        clients[1].writer.write(client_frame(TEXT, b"x" * 2000))  # it is failed, and not gone
        await eventually(lambda: len(server.replica.removed) == 1)
        assert descriptors.open == MOST_DESCRIPTORS
        assert descriptors.doubt() == "descriptor_limit"

        refused = await connect()
        answer = await refused.reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 5\r\n" in answer
        refused.writer.close()
        assert descriptors.open == MOST_DESCRIPTORS

        for client in clients:
            client.writer.close()
        await eventually(lambda: not descriptors.open)
        assert descriptors.doubt() is None

    perform(play)
