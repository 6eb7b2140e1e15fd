"""Credentials of a socket that is connected: they end, and are refreshed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import BRIEF, token

CHANNELS = [
    {"pattern": "room:*", "push": "broadcast"},
    {"pattern": "team:{team}", "push": "broadcast"},
    {"pattern": "doc:*", "join": "token"},
    {"pattern": "open:*", "join": "anyone"},
]
CONFIG = {
    "channels": CHANNELS,
    "auth": {"leeway_seconds": 0, "allow_anonymous": True},
}

Connect = Callable[..., Awaitable[PhoenixClient]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway the tests share."""
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), CONFIG)
    process.start()
    yield process
    assert "Traceback" not in process.full_log()
    process.kill()


@pytest.fixture
async def connect(gateway: GatewayProcess) -> AsyncIterator[Connect]:
    """Opens sockets; closes them after the test."""
    clients: list[PhoenixClient] = []

    async def opened(signed: str | None, *topics: str, vsn: str = "2.0.0") -> PhoenixClient:
        clients.append(await PhoenixClient.connect(gateway.socket_url, signed, vsn=vsn))
        for topic in topics:
            assert (await clients[-1].join(topic))[4]["status"] == "ok"
        return clients[-1]

    yield opened
    await asyncio.gather(*(client.close() for client in clients))


async def refresh(client: PhoenixClient, signed: Any, topic: str = "phoenix") -> tuple[str, Any]:
    """Send a token; status and response of the answer."""
    reply = await client.ask(topic, "access_token", {"access_token": signed})
    return reply[4]["status"], reply[4]["response"]


async def test_a_socket_whose_token_expires_is_closed_with_4003(connect: Connect) -> None:
    client = await connect(token(ttl=BRIEF), "room:1")

    assert await client.closed() == 4003
    closes = [
        frame for frame in client.inbox if isinstance(frame, list) and frame[3] == "phx_close"
    ]
    assert closes == [], "or phoenix.js would not join again with its next token"


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
@pytest.mark.parametrize("topic", ["phoenix", "room:1"])
async def test_a_socket_that_refreshed_in_time_stays(
    connect: Connect, topic: str, vsn: str
) -> None:
    """A second socket with the first token shows that its time is over."""
    short = token(ttl=BRIEF)
    witness = await connect(short)
    client = await connect(short, "room:1", vsn=vsn)
    assert await refresh(client, token(), topic) == ("ok", {})

    assert await witness.closed() == 4003
    assert (await client.ask("room:1", "say", {}))[4]["status"] == "ok"


async def test_the_refreshed_token_ends_too_when_it_is_the_shorter_one(connect: Connect) -> None:
    client = await connect(token(ttl=3600), "room:1")
    assert await refresh(client, token(ttl=BRIEF)) == ("ok", {})

    assert await client.closed() == 4003


async def test_a_bad_refresh_leaves_the_old_credentials(
    connect: Connect, gateway: GatewayProcess
) -> None:
    client = await connect(token(), "room:1")
    refused = ("error", {"reason": "unauthorized"})
    for bad in ("", "no token", 7, None, token("43"), token(ttl=-60), token(secret="x" * 40)):
        assert await refresh(client, bad, "room:1") == refused

    assert (await client.ask("room:1", "say", {}))[4]["status"] == "ok"
    for reason in ("token_subject", "token_expired", "token_signature"):
        assert gateway.metric("token_refreshes_total", result=reason) >= 1


async def test_channels_the_new_token_does_not_allow_are_closed(connect: Connect) -> None:
    signed = token(team="red", topics=["doc:a*", "doc:b"])
    client = await connect(signed, "room:1", "team:red", "doc:a1", "doc:b")
    assert await refresh(client, token(team="blue", topics=["doc:b"])) == ("ok", {})

    for topic in ("team:red", "doc:a1"):
        await client.expect(lambda frame, t=topic: frame[2] == t and frame[3] == "phx_close")  # type: ignore[misc]
    assert (await client.join("team:blue"))[4]["status"] == "ok"
    assert (await client.join("doc:a1"))[4]["response"] == {"reason": "unauthorized"}
    closed = [frame[2] for frame in client.inbox if frame[3] == "phx_close"]
    assert sorted(closed) == ["doc:a1", "team:red"]
    assert (await client.ask("room:1", "say", {}))[4]["status"] == "ok"


async def test_an_anonymous_socket_cannot_become_somebody(connect: Connect) -> None:
    client = await connect(None, "open:1")

    assert await refresh(client, token()) == ("error", {"reason": "unauthorized"})


async def test_a_token_sent_on_a_socket_reaches_no_log_and_nobody_else(
    connect: Connect, gateway: GatewayProcess
) -> None:
    witness = await connect(token("43"), "room:1")
    client = await connect(token(), "room:1")
    fresh = token(nonce=str(time.time()))
    assert await refresh(client, fresh, "room:1") == ("ok", {})
    await client.ask("room:1", "say", {})
    await witness.expect(lambda frame: frame[3] == "say")

    assert fresh not in gateway.full_log()
    assert [frame for frame in witness.inbox if fresh in str(frame)] == []
