"""Drives PyPI phxsocket, which lives in threads of its own."""

import asyncio
from typing import Any

import phxsocket

from tests.matrix.drivers.python.lines import follow, report

EVENTS = ("said", "presence_state", "presence_diff")

sockets: dict[str, phxsocket.Client] = {}


def connect(command: dict[str, Any]) -> None:
    name = command["as"]
    client = phxsocket.Client(command["url"] + "/websocket", {"token": command["token"]})
    client.on_close = lambda _: report("closed", name)
    if command["beat"]:
        client.heartbeat_interval = command["beat"] / 1000
    sockets[name] = client
    client.connect()
    report("open", name)


def join(command: dict[str, Any]) -> None:
    name, topic = command["as"], command["topic"]
    channel = sockets[name].channel(topic)
    for event in EVENTS:
        channel.on(
            event,
            lambda payload, e=event: report("heard", name, topic=topic, event=e, payload=payload),
        )
    try:
        report("joined", name, topic=topic, response=channel.join())
    except phxsocket.channel.ChannelConnectError as error:
        report("refused", name, topic=topic, response=error.args[0])


def push(command: dict[str, Any]) -> None:
    channel = sockets[command["as"]].channel(command["topic"])
    sent = channel.push(command["event"], command["payload"], reply=True)
    answer = sent.wait_for_response()
    report("answer", command["as"], status=answer["status"], response=answer["response"])


def leave(command: dict[str, Any]) -> None:
    channel = sockets[command["as"]].channel(command["topic"])
    channel.on_close = lambda: report("left", command["as"])
    channel.leave()


def close(command: dict[str, Any]) -> None:
    """A socket that was refused has ended by itself."""


def in_a_thread(do: Any) -> Any:
    """Its calls wait for their answers."""

    async def done(command: dict[str, Any]) -> None:
        await asyncio.to_thread(do, command)

    return done


commands = {"connect": connect, "close": close, "join": join, "push": push, "leave": leave}
asyncio.run(follow({name: in_a_thread(do) for name, do in commands.items()}))
