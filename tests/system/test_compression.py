"""Compression with real clients: broadcasts are compressed for who wants it, and pushes may be."""

import json
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
LONG = {"said": "She sells sea shells by the sea shore. " * 50}
MOST_BYTES = 65_536


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    process = GatewayProcess(
        tmp_path_factory.mktemp("gateway"),
        {
            "compression": {"enabled": True},
            "channels": [
                {"pattern": "kept:*", "history": {"messages": 9, "seconds": 60}},
                {"pattern": "room:*", "push": "broadcast"},
            ],
        },
    )
    process.start()
    yield process
    process.kill()


@asynccontextmanager
async def joined(
    gateway: GatewayProcess, topic: str = ROOM, params: Any = None, **options: Any
) -> AsyncIterator[PhoenixClient]:
    """A client that has joined."""
    client = await PhoenixClient.connect(gateway.socket_url, token(), **options)
    await client.join(topic, params)
    yield client
    await client.close()


def extensions(client: PhoenixClient) -> str | None:
    """What the handshake's answer says."""
    response = client.connection.response
    assert response is not None
    return response.headers.get("Sec-WebSocket-Extensions")


def saved(gateway: GatewayProcess) -> tuple[float, float]:
    """Bytes before and after compression."""
    before = gateway.metric("compression_before_bytes_total")
    return before, gateway.metric("compression_after_bytes_total")


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_members_with_and_without_it_hear_the_same(gateway: GatewayProcess, vsn: str) -> None:
    before, after = saved(gateway)
    async with (
        joined(gateway, vsn=vsn, compression="deflate") as writer,
        joined(gateway, vsn=vsn, compression="deflate") as reader,
        joined(gateway, vsn=vsn) as plain,
    ):
        assert [extensions(client) is not None for client in (writer, reader, plain)] == [
            True,
            True,
            False,
        ]
        for client in (writer, plain):
            assert (await client.ask(ROOM, "said", LONG))[4]["status"] == "ok"
        members = (writer, reader, plain)
        await eventually(lambda: all(c.events(ROOM, "said") == [LONG, LONG] for c in members))
    grown, left = saved(gateway)[0] - before, saved(gateway)[1] - after

    assert 2 * len(LONG["said"]) < grown < 2 * (len(LONG["said"]) + 100), "once for all who want it"
    assert 0 < left < grown / 4


async def test_a_push_may_come_in_fragments(gateway: GatewayProcess) -> None:
    async with joined(gateway, compression="deflate") as client:
        text = json.dumps(["1", "9", ROOM, "said", LONG])
        await client.connection.send([text[:10], text[10:900], text[900:]])

        assert (await client.reply("9"))[4]["status"] == "ok"
        assert (await client.expect(lambda frame: frame[3] == "said"))[4] == LONG


async def test_an_offer_that_cannot_be_met_is_declined(gateway: GatewayProcess) -> None:
    small = ClientPerMessageDeflateFactory(server_max_window_bits=9)
    usual = ClientPerMessageDeflateFactory()
    async with (
        joined(gateway, extensions=[small]) as declined,
        joined(gateway, extensions=[small, usual]) as second,
    ):
        assert extensions(declined) is None
        assert "no_context_takeover" in (extensions(second) or "")
        await declined.push(ROOM, "said", LONG)
        await eventually(lambda: second.events(ROOM, "said") == [LONG])


async def test_a_bomb_is_closed_as_too_big(gateway: GatewayProcess) -> None:
    deflate = zlib.compressobj(wbits=-15)
    bomb = deflate.compress(bytes(1000 * MOST_BYTES)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    bomb = bomb[: MOST_BYTES - 1]
    async with joined(gateway, compression="deflate") as client:
        head = struct.pack("!BBH", 0xC1, 0xFE, len(bomb))
        client.connection.transport.write(head + bytes(4) + bomb)

        assert await client.closed() == 1009


async def test_what_was_missed_comes_as_it_is(gateway: GatewayProcess) -> None:
    async with Backend(gateway) as backend:
        assert await backend.publish("kept:1", "said", LONG) == 202
    before = saved(gateway)
    async with joined(gateway, "kept:1", {"resume": {"last": 1}}, compression="deflate") as client:
        assert (await client.expect(lambda frame: frame[3] == "said"))[4] == LONG

    assert saved(gateway) == before


async def test_it_is_off_by_default(start_gateway: StartGateway) -> None:
    gateway = start_gateway({})
    async with joined(gateway, compression="deflate") as client:
        assert extensions(client) is None
        await client.push(ROOM, "said", LONG)
        await eventually(lambda: client.events(ROOM, "said") == [LONG])

    assert saved(gateway) == (0, 0)
