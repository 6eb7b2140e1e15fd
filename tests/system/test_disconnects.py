"""Clients that go away at the worst moment: nobody else notices, and nothing of them is left."""

import asyncio
import contextlib
import json
import socket
import struct

import pytest
from aiohttp import web

from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.upstream import UpstreamServer
from tests.support.waiting import eventually

ROOM = "room:1"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the end of the connection is an RST
HANDSHAKE = (
    "GET /socket/websocket?vsn=2.0.0&token={token} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def text_frame(*message: object) -> bytes:
    """A short client frame, masked with zeros."""
    data = json.dumps(message).encode()
    return bytes((0x81, 0x80 | len(data), 0, 0, 0, 0)) + data


async def open_raw(gateway: GatewayProcess) -> socket.socket:
    """A socket after its handshake."""
    loop = asyncio.get_running_loop()
    raw = socket.socket()
    raw.setblocking(False)
    await loop.sock_connect(raw, ("127.0.0.1", gateway.public_port))
    await loop.sock_sendall(raw, HANDSHAKE.format(token=token("brief")).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += await loop.sock_recv(raw, 4096)
    return raw


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_members_that_vanish_in_the_middle_of_a_fan_out(
    start_gateway: StartGateway, reset: bool
) -> None:
    gateway = start_gateway()
    loop = asyncio.get_running_loop()
    stayer = await PhoenixClient.connect(gateway.socket_url, token("stayer"))
    await stayer.join(ROOM)
    published = 0
    leaving = True

    async def publish() -> None:
        nonlocal published
        async with Backend(gateway) as backend:
            while leaving:
                assert await backend.publish(ROOM, "said", {}) == 202
                published += 1

    publishers = [asyncio.create_task(publish()) for _ in range(4)]
    for _ in range(150):
        raw = await open_raw(gateway)
        await loop.sock_sendall(raw, text_frame("1", "1", ROOM, "phx_join", {}))
        await loop.sock_recv(raw, 4096)
        with contextlib.suppress(OSError):
            await loop.sock_sendall(raw, text_frame("1", "2", ROOM, "said", {}) * 3)
        if reset:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        raw.close()
    leaving = False
    await asyncio.gather(*publishers)

    await eventually(lambda: len(stayer.events(ROOM, "said")) >= published)
    await eventually(lambda: gateway.metric("connections", transport="websocket") == 1)
    await stayer.close()
    assert "Traceback" not in gateway.log()


async def test_clients_that_vanish_while_they_join_leave_no_subscription(
    start_gateway: StartGateway, start_nats: StartNats
) -> None:
    gateway = start_gateway({"bus": {"url": start_nats().url}})
    for number in range(200):
        client = await PhoenixClient.connect(gateway.socket_url, token("brief"))
        for each in range(5):
            await client.send_frame("1", "1", f"room:{number}-{each}", "phx_join", {})
        client.connection.transport.abort()

    await eventually(lambda: gateway.metric("connects_total", result="ok", reason="") == 200)
    await eventually(lambda: gateway.metric("subscriptions") == 0)
    assert "Traceback" not in gateway.log()


@pytest.mark.slow
async def test_who_never_ends_its_request_is_cut_off(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    client = await PhoenixClient.connect(gateway.socket_url, token())
    await client.join(ROOM)

    async def cut_off_after(sent: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    begun = b"GET /socket/websocket HTTP/1.1\r\nHost: x\r\n"
    await asyncio.gather(cut_off_after(b""), cut_off_after(begun))
    assert (await client.heartbeat())[4]["status"] == "ok", "an idle socket is another matter"
    await client.close()


async def test_who_goes_away_during_the_handshake_is_no_error_of_ours(
    start_gateway: StartGateway,
) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def answer(_: object) -> web.Response:
        asked.set()
        await gone.wait()
        return web.Response(status=204)

    async with UpstreamServer() as upstream:
        upstream.answers["gateway.connect"] = answer
        gateway = start_gateway({"upstream": upstream.section(events=["connect"])})
        loop = asyncio.get_running_loop()
        with socket.socket() as raw:
            raw.setblocking(False)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await loop.sock_connect(raw, ("127.0.0.1", gateway.public_port))
            await loop.sock_sendall(raw, HANDSHAKE.format(token=token("brief")).encode())
            await asked.wait()
        gone.set()
        client = await PhoenixClient.connect(gateway.socket_url, token())
        await client.join(ROOM)
        await client.close()

        await eventually(lambda: gateway.metric("connections", transport="websocket") == 0)

    assert [line for line in gateway.log_lines() if line.get("level") == "error"] == []
