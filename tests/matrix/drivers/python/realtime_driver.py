"""Drives PyPI realtime, Supabase's client."""

import asyncio
from typing import Any

from realtime import (
    AsyncRealtimeChannel,
    AsyncRealtimeClient,
    RealtimeAcknowledgementStatus,
    RealtimeSubscribeStates,
)
from websockets import ConnectionClosed

from tests.matrix.drivers.python.lines import follow, report

PREFIX = "realtime:"  # which it puts before each name

sockets: dict[str, AsyncRealtimeClient] = {}
channels: dict[tuple[str, str], AsyncRealtimeChannel] = {}
left: set[asyncio.Task[None]] = set()


async def connect(command: dict[str, Any]) -> None:
    client = AsyncRealtimeClient(
        command["url"], "of the project", params={"token": command["token"]}
    )
    sockets[command["as"]] = client
    await client.connect()
    report("open", command["as"])


async def close(command: dict[str, Any]) -> None:
    await sockets[command["as"]].close()


async def join(command: dict[str, Any]) -> None:
    name, topic = command["as"], command["topic"]
    channel = sockets[name].channel(
        topic.removeprefix(PREFIX),
        {"config": {"broadcast": {"self": True, "ack": True}, "presence": None, "private": False}},
    )
    channels[name, topic] = channel

    def heard(message: Any) -> None:
        report("heard", name, topic=topic, event=message["event"], payload=message["payload"])

    def present() -> None:
        users = {user: len(metas) for user, metas in channel.presence_state().items()}
        report("present", name, users=users)

    def state(now: RealtimeSubscribeStates, error: Exception | None) -> None:
        if now is RealtimeSubscribeStates.SUBSCRIBED:
            report("joined", name, topic=topic, response={})
        elif isinstance(error, ConnectionClosed):
            report("closed", name, code=error.rcvd.code if error.rcvd else None)
        elif error is not None:
            report("refused", name, topic=topic, response={"reason": str(error)})
            left.add(asyncio.create_task(channel.unsubscribe()))  # or it would try again for ever

    channel.on_broadcast("said", heard)
    if command["presence"]:
        channel.on_presence_sync(present)
    await channel.subscribe(state)


async def give(command: dict[str, Any]) -> None:
    sockets[command["as"]].params["token"] = command["token"]


async def push(command: dict[str, Any]) -> None:
    if command["event"] == "access_token":
        await sockets[command["as"]].set_auth(command["payload"]["access_token"])
        report("answer", command["as"], status="ok", response={})
        return
    channel = channels[command["as"], command["topic"]]
    message = {"type": "broadcast", "event": command["event"], "payload": command["payload"]}
    sent = await channel.push("broadcast", message)
    sent.receive(
        RealtimeAcknowledgementStatus.Ok,
        lambda _: report("answer", command["as"], status="ok", response={}),
    )


async def leave(command: dict[str, Any]) -> None:
    await channels[command["as"], command["topic"]].unsubscribe()
    report("left", command["as"])


asyncio.run(
    follow(
        {
            "connect": connect,
            "close": close,
            "join": join,
            "push": push,
            "token": give,
            "leave": leave,
        }
    )
)
