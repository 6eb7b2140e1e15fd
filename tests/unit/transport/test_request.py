"""The plain form of a request for a WebSocket: read as aiohttp reads it, and left to it where in doubt."""

import asyncio
from typing import Any

import pytest
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.request import UpgradeRequest, read

MOST = 2000
HANDSHAKE = (
    b"GET /socket/websocket?vsn=2.0.0&token=a.b-c_d HTTP/1.1\r\nHost: localhost:4000\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def by_aiohttp(data: bytes) -> Any:
    """The request as aiohttp has it."""

    async def parse() -> Any:
        protocol: Any = asyncio.Protocol()
        parser = HttpRequestParser(protocol, asyncio.get_running_loop(), 2**16)
        [(message, _)], upgraded, _ = parser.feed_data(data)
        assert upgraded
        return message

    return asyncio.run(parse())


def assert_same(request: UpgradeRequest, message: Any) -> None:
    assert request.method == message.method
    assert sorted((name.lower(), value) for name, value in request.headers.items()) == sorted(
        (name.lower(), value) for name, value in message.headers.items()
    )
    assert list(request.query.items()) == list(message.url.query.items())
    assert request.host == message.headers["Host"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"", b""),
        (b"?vsn=2.0.0&token=a.b-c_d", b""),
        (b"?vsn=2.0.0", b"?"),
        (b"?vsn=2.0.0", b'?device_name=My%20%F0%9F%93%B1+%FF&vsn=1.0.0&vsn=2.0.0;x&=&a?"b"'),
        (b"/websocket?", b"/websocket/?"),
        (b"/socket/", b"/socket//"),
        (b"Connection: Upgrade", b"connection:keep-alive, Upgrade  "),
        (b"Upgrade: websocket", b"UPGRADE:\tWebSocket\t"),
        (b"\r\n\r\n", b"\r\nX-Forwarded-For: 10.0.0.1, ::1\r\nX-Empty:\r\n\r\n"),
        (b"localhost:4000", b"[::1]:4000"),
    ],
)
def test_the_plain_form_is_read_as_aiohttp_reads_it(old: bytes, new: bytes) -> None:
    data = HANDSHAKE.replace(old, new, 1) if old else HANDSHAKE
    request = read(data + b"behind", MOST, "192.0.2.1")
    assert request is not None
    assert_same(request, by_aiohttp(data))
    assert (request.size, request.remote) == (len(data), "192.0.2.1")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET", b"HEAD"),
        (b"GET", b"get"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"/socket/websocket", b"/socket/longpoll"),
        (b"/socket/websocket", b"http://localhost/socket/websocket"),
        (b"/socket/websocket", b"/socket/websocketx"),
        (b"vsn=2.0.0", b"vsn=2.0.0#a"),
        (b"vsn=2.0.0", b"vsn=2.0.0 a"),
        (b"vsn=2.0.0", "vsn=2.0.0&name=ä".encode()),
        (b"Host: localhost:4000\r\n", b""),
        (b"Host: localhost:4000\r\n", b"Host: a\r\nHost: b\r\n"),
        (b"Host: localhost:4000", b"Host: a@b"),
        (b"Host: localhost:4000", b"Host : a"),
        (b"Host: localhost:4000", b"Host: localhost\r\n more"),
        (b"Host: localhost:4000", b"Host: localhost\nX: y"),
        (b"Upgrade: websocket", b"Upgrade: websocket, h2c"),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Connection: close, Upgrade"),
        (b"Connection: Upgrade", b"Connection: Upgrade\r\nConnection: close"),
        (b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"),
        (b"\r\n\r\n", "\r\nX-Name: ä\r\n\r\n".encode()),
        (b"\r\n\r\n", b"\r\nX-Name: \x00\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nX-Long: %b\r\n\r\n" % (b"x" * MOST)),
        (b"\r\n\r\n", b"\r\n%b\r\n" % b"".join(b"X-%d: y\r\n" % n for n in range(70))),
        (b"\r\n\r\n", b"\r\n"),
    ],
)
def test_what_is_written_otherwise_is_left_to_aiohttp(old: bytes, new: bytes) -> None:
    assert old in HANDSHAKE
    assert read(HANDSHAKE.replace(old, new, 1), MOST, None) is None


@given(
    query=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E))
    | st.text("aZ9._~-=&=&%+"),  # nearly what has nothing escaped
    name=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1),
    value=st.text(st.characters(max_codepoint=0xFF)),
)
def test_whatever_is_read_here_is_what_aiohttp_reads(query: str, name: str, value: str) -> None:
    data = HANDSHAKE.replace(b"vsn=2.0.0", query.encode()).replace(
        b"\r\n\r\n", f"\r\n{name}: {value}\r\n\r\n".encode("latin-1")
    )
    request = read(data, MOST, None)
    if request is not None:
        assert_same(request, by_aiohttp(data))
