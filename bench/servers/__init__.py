"""The servers under test: how each is started, joined and published to.

A server object is one run of it, on ports of its own. It is sent to the process of the clients, so it
holds plain values only.
"""

from collections.abc import Callable
from typing import Final

from bench.servers.base import PAYLOAD_BYTES, Server
from bench.servers.gateway import Gateway
from bench.servers.rivals import RIVALS, BareAiohttp, SocketIo, Ws

__all__ = [
    "BASELINE",
    "NODE_SERVERS",
    "PAYLOAD_BYTES",
    "RIVALS",
    "SERVERS",
    "Server",
]

SERVERS: Final[dict[str, Callable[[], Server]]] = {
    "gateway": Gateway,
    "aiohttp-framed": lambda: BareAiohttp("framed"),
    "aiohttp-send_str": lambda: BareAiohttp("send_str"),
    "ws": Ws,
    "socket.io": SocketIo,
}
"""By the name in the report."""

BASELINE: Final = "aiohttp-framed"
"""What the others' figures are divided by."""

NODE_SERVERS: Final = frozenset({"ws", "socket.io"})
