"""Clients by other authors that speak version 1 only."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import phxsocket
import pytest
from realtime import AsyncRealtimeClient, RealtimeSubscribeStates

from tests.clients.conftest import Drive
from tests.support.api import Backend
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

TEXT = {"text": "grüß Gott 🙂", "n": 1}


async def publish(gateway: GatewayProcess, topic: str, event: str, payload: Any) -> None:
    """What a backend does."""
    async with Backend(gateway) as backend:
        assert await backend.publish(topic, event, payload) == 202


class TestPhoenixChannels:
    """npm phoenix-channels 1.0.0."""

    async def test_a_push_is_answered_and_reaches_both_clients(
        self, drive: Drive, gateway: GatewayProcess
    ) -> None:
        options = {"topic": "room:npm-talk", "params": {"token": token()}}
        client = await drive("phoenix-channels", "talk", gateway, **options)

        assert await client.finish() == [
            {"saw": "reply", "response": {}},
            {"saw": "echo", "payload": TEXT},
            {"saw": "heard", "payload": TEXT},
        ]

    async def test_what_a_backend_publishes_arrives(
        self, drive: Drive, gateway: GatewayProcess
    ) -> None:
        client = await drive("phoenix-channels", "listen", gateway, topic="news:npm")
        await client.expect("joined")
        await publish(gateway, "news:npm", "said", TEXT)
        await publish(gateway, "news:npm", "end", {})

        assert (await client.finish())[1:] == [{"saw": "said", "payload": TEXT}]

    async def test_a_refused_join_says_why(self, drive: Drive, gateway: GatewayProcess) -> None:
        client = await drive("phoenix-channels", "refused", gateway, topic="room:npm")

        assert await client.finish() == [{"saw": "refused", "answer": {"reason": "unauthorized"}}]

    async def test_heartbeats_are_answered(self, drive: Drive, gateway: GatewayProcess) -> None:
        client = await drive(
            "phoenix-channels", "heartbeat", gateway, topic="news:npm", heartbeatIntervalMs=100
        )

        answer = {"saw": "heartbeat", "payload": {"status": "ok", "response": {}}}
        assert await client.finish() == [answer] * 3


@contextmanager
def phxsocket_client(gateway: GatewayProcess, **params: str) -> Iterator[phxsocket.Client]:
    """A connected one; it lives in threads of its own."""
    client = phxsocket.Client(gateway.socket_url, params)
    client.connect()
    try:
        yield client
    finally:
        client.close()


class TestPhxsocket:
    """PyPI phxsocket 0.1.5; its refs are numbers and start with 0."""

    async def test_a_push_is_answered_and_comes_back(self, gateway: GatewayProcess) -> None:
        heard: list[Any] = []
        with phxsocket_client(gateway, token=token()) as client:
            channel = client.channel("room:phxsocket")
            channel.on("said", heard.append)
            assert await asyncio.to_thread(channel.join) == {}
            push = channel.push("said", TEXT, reply=True)
            answer = await asyncio.to_thread(push.wait_for_response)
            await eventually(lambda: heard == [TEXT])

        assert answer == {"status": "ok", "response": {}}

    async def test_what_a_backend_publishes_arrives(self, gateway: GatewayProcess) -> None:
        heard: list[Any] = []
        with phxsocket_client(gateway) as client:
            channel = client.channel("news:phxsocket")
            channel.on("said", heard.append)
            await asyncio.to_thread(channel.join)
            await publish(gateway, "news:phxsocket", "said", TEXT)
            await eventually(lambda: heard == [TEXT])

    async def test_a_refused_join_says_why(self, gateway: GatewayProcess) -> None:
        with phxsocket_client(gateway) as client:
            channel = client.channel("room:phxsocket")
            with pytest.raises(phxsocket.channel.ChannelConnectError, match="unauthorized"):
                await asyncio.to_thread(channel.join)

    async def test_its_heartbeat_is_answered(self, gateway: GatewayProcess) -> None:
        seen: list[phxsocket.Message] = []
        client = phxsocket.Client(gateway.socket_url)
        client.on_message = seen.append
        client.connect()
        await eventually(lambda: any(message.topic == "phoenix" for message in seen))
        client.close()

        assert (seen[0].event, seen[0].payload["status"]) == ("phx_reply", "ok")


class Member:
    """A PyPI realtime client in one channel.

    Attributes:
        heard: Payloads of the broadcasts it got.
    """

    def __init__(self, gateway: GatewayProcess, name: str) -> None:
        url = gateway.socket_url.removesuffix("/websocket")  # which it appends itself
        self.client = AsyncRealtimeClient(url, token=f"apikey-of-{name}")
        self.channel = self.client.channel("cabin")
        self.channel.on_broadcast("said", lambda message: self.heard.append(message["payload"]))
        self.states: list[RealtimeSubscribeStates] = []
        self.heard: list[Any] = []

    async def subscribe(self) -> None:
        """Returns once it has joined or was refused."""
        await self.channel.subscribe(lambda state, _: self.states.append(state))


@pytest.fixture
async def members(gateway: GatewayProcess) -> AsyncIterator[list[Member]]:
    """Two of them, in the same channel."""
    members = [Member(gateway, name) for name in ("ann", "ben")]
    for member in members:
        await member.subscribe()
    yield members
    for member in members:
        await member.client.remove_all_channels()


class TestRealtime:
    """PyPI realtime; it joins ``realtime:`` topics and checks every message against a model."""

    async def test_a_subscription_is_confirmed(self, members: list[Member]) -> None:
        assert [member.states for member in members] == [[RealtimeSubscribeStates.SUBSCRIBED]] * 2

    async def test_a_broadcast_reaches_the_other_member(self, members: list[Member]) -> None:
        ann, ben = members
        await ann.channel.send_broadcast("said", TEXT)

        await eventually(lambda: ben.heard == [TEXT])

    async def test_what_a_backend_publishes_arrives(
        self, gateway: GatewayProcess, members: list[Member]
    ) -> None:
        message = {"type": "broadcast", "event": "said", "payload": TEXT}
        await publish(gateway, "realtime:cabin", "broadcast", message)

        await eventually(lambda: all(member.heard == [TEXT] for member in members))
