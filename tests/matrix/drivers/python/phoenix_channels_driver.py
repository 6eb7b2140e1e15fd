"""Drives PyPI phoenix-channels-python-client: phoenix_channels_driver.py VERSION-OF-THE-PROTOCOL."""

import asyncio
import sys
from typing import Any
from urllib.parse import quote

from phoenix_channels_python_client import PHXChannelsClient
from phoenix_channels_python_client.client_types import ReconnectPolicy
from phoenix_channels_python_client.exceptions import PHXTopicError

from tests.matrix.drivers.python.lines import follow, report

WIRE = f"{sys.argv[1]}.0"
AT_ONCE = ReconnectPolicy(rapid_disconnect_uptime_s=0, service_restart_max_delay_s=1)

sockets: dict[str, PHXChannelsClient] = {}


async def connect(command: dict[str, Any]) -> None:
    name = command["as"]

    async def closed(_: Exception | None) -> None:
        report("closed", name)

    async def opened() -> None:
        report("open", name)
        for topic in sockets[name].get_current_subscriptions():
            report("joined", name, topic=topic, response={})

    client = PHXChannelsClient(
        f"{command['url']}/websocket?token={quote(command['token'])}",
        "of the project",
        protocol_version=WIRE,
        heartbeat_interval_s=command["beat"] / 1000 if command["beat"] else 30.0,
        reconnect_policy=AT_ONCE,
        on_disconnect=closed,
        on_reconnect=opened,
    )
    sockets[name] = client
    await client.__aenter__()  # it lives until the driver ends
    report("open", name)


async def close(command: dict[str, Any]) -> None:
    await sockets[command["as"]].shutdown("told to")


async def join(command: dict[str, Any]) -> None:
    name, topic = command["as"], command["topic"]
    client = sockets[name]

    async def heard(message: Any) -> None:
        report("heard", name, topic=topic, event=str(message.event), payload=message.payload)

    try:
        await client.subscribe_to_topic(topic, heard)
    except PHXTopicError as error:
        report("refused", name, topic=topic, response={"reason": str(error)})
    else:
        report("joined", name, topic=topic, response={})


async def leave(command: dict[str, Any]) -> None:
    await sockets[command["as"]].unsubscribe_from_topic(command["topic"])
    report("left", command["as"])


asyncio.run(follow({"connect": connect, "close": close, "join": join, "leave": leave}))
