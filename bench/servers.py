"""The servers under test: how each is started, joined and published to.

A server object is one run of it, on ports of its own. It is sent to the process of the clients, so it
holds plain values only.
"""

import json
import os
import socket
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.wire import LoadError, Wire
from gateway.auth.tokens import mint

RIVALS: Final = Path(__file__).parent / "rivals"
PAYLOAD_BYTES: Final = 128
_BRACES: Final = len(b'{"data":""}')
PAYLOAD: Final = b'{"data":"%b"}' % (b"x" * (PAYLOAD_BYTES - _BRACES))
"""What every server delivers: a JSON object of 128 bytes."""

TOPIC: Final = "room:bench"
EVENT: Final = "event"
PHOENIX_TEXT: Final = b'[null,null,"%b","%b",%b]' % (TOPIC.encode(), EVENT.encode(), PAYLOAD)
"""The payload in a message of Phoenix Channels V2."""

_SECRET: Final = "a secret of the benchmark, long enough for HS256"  # noqa: S105 -- guards nothing
_API_KEY: Final = "bench"
_CONFIG: Final = """
[server]
public = "127.0.0.1:{public}"
internal = "127.0.0.1:{internal}"
[auth]
secrets = ["{secret}"]
[limits]
idle_timeout_seconds = 3600  # the clients send no heartbeats
[drain]
delay_seconds = 0
window_seconds = 0
[[api.keys]]
name = "bench"
key = "{key}"
scopes = ["publish"]
[[channels]]
pattern = "room:*"
"""


class Server(ABC):
    """A server and its dialect."""

    message: bytes = PHOENIX_TEXT
    """The text of the WebSocket message each client must get."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.publish_port = self.port

    @abstractmethod
    def command(self, directory: Path) -> list[str]:
        """What starts it; ``directory`` is for its files."""

    def join(self, wire: Wire, number: int) -> None:
        """Make the connection one of the clients that get broadcasts; ``number`` tells clients apart."""
        del number
        wire.upgrade("/")

    def publish(self) -> bytes:
        """The HTTP request that makes it broadcast."""
        return _post("/", self.message)

    def answer(self, text: bytes) -> bytes | None:
        """What a client must say to a message that is no broadcast; None if there is no such message."""
        del text
        return None


class Gateway(Server):
    """Gateway on the memory bus: a signed token for each client, the V2 protocol, one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.publish_port = _free_port()

    def command(self, directory: Path) -> list[str]:
        config = directory / "gateway.toml"
        config.write_text(
            _CONFIG.format(
                public=self.port, internal=self.publish_port, secret=_SECRET, key=_API_KEY
            )
        )
        return [sys.executable, "-m", "gateway", "serve", "--config", str(config)]

    def join(self, wire: Wire, number: int) -> None:
        token = mint(_SECRET, sub=str(number), ttl_seconds=3600, now=time.time())
        wire.upgrade(f"/socket/websocket?vsn=2.0.0&token={token}")
        wire.send(b'["1","1","%b","phx_join",{}]' % TOPIC.encode())
        reply = json.loads(wire.receive())
        if reply[4]["status"] != "ok":
            raise LoadError(f"join refused: {reply}")

    def publish(self) -> bytes:
        body = b'{"topic":"%b","event":"%b","payload":%b}' % (
            TOPIC.encode(),
            EVENT.encode(),
            PAYLOAD,
        )
        return _post("/v1/publish", body, b"Authorization: Bearer %b\r\n" % _API_KEY.encode())


class BareAiohttp(Server):
    """An aiohttp server without a protocol, which delivers the very bytes Gateway does."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode

    def command(self, directory: Path) -> list[str]:
        del directory
        return [sys.executable, str(RIVALS / "bare_aiohttp.py"), str(self.port), self._mode]


class Ws(Server):
    """The npm package ws, which delivers the very bytes Gateway does."""

    def command(self, directory: Path) -> list[str]:
        del directory
        return ["node", str(RIVALS / "ws.js"), str(self.port)]


class SocketIo(Server):
    """The npm package socket.io: Engine.IO 4 over WebSocket alone, one room."""

    message = b'42["%b",%b]' % (EVENT.encode(), PAYLOAD)

    def command(self, directory: Path) -> list[str]:
        del directory
        return ["node", str(RIVALS / "socketio.js"), str(self.port)]

    def join(self, wire: Wire, number: int) -> None:
        del number
        wire.upgrade("/socket.io/?EIO=4&transport=websocket")
        _expect(wire.receive(), b"0{")
        wire.send(b"40")
        _expect(wire.receive(), b"40{")

    def publish(self) -> bytes:
        return _post("/", PAYLOAD)

    def answer(self, text: bytes) -> bytes | None:
        return b"3" if text == b"2" else None


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


def environment() -> dict[str, str]:
    """The servers' environment: no ``GATEWAY_`` variables, Node in production mode."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
    return kept | {"NODE_ENV": "production"}


def _post(path: str, body: bytes, headers: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (path.encode(), headers, len(body), body)
    )


def _expect(text: bytes, start: bytes) -> None:
    if not text.startswith(start):
        raise LoadError(f"expected {start!r}, got {text[:200]!r}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
