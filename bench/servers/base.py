"""What every server under test has in common."""

import os
import random
import socket
from abc import ABC, abstractmethod
from itertools import cycle
from pathlib import Path
from typing import Final

from bench.wire import Wire

PAYLOAD_BYTES: Final = 128
_BRACES: Final = len(b'{"data":""}')
PAYLOAD: Final = b'{"data":"%b"}' % (b"x" * (PAYLOAD_BYTES - _BRACES))
"""What every server delivers: a JSON object of 128 bytes."""

TOPIC: Final = "room:bench"
EVENT: Final = "event"
PHOENIX_TEXT: Final = b'[null,null,"%b","%b",%b]' % (TOPIC.encode(), EVENT.encode(), PAYLOAD)
"""The payload in a message of Phoenix Channels V2."""


_ports = cycle(random.sample(range(30_000, 32_768), 2_768))


class Server(ABC):
    """A server and its dialect."""

    message: bytes = PHOENIX_TEXT
    """The text of the WebSocket message each client must get."""

    def __init__(self) -> None:
        self.port = free_port()
        self.publish_port = self.port

    @abstractmethod
    def command(self, directory: Path) -> list[str]:
        """What starts it; ``directory`` is for its files."""

    def environment(self) -> dict[str, str]:
        """Its environment: no ``GATEWAY_`` variables, Node in production mode."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")
        }
        return kept | {"NODE_ENV": "production"}

    def join(self, wire: Wire, number: int) -> None:
        """Make the connection one of the clients that get broadcasts; ``number`` tells clients apart."""
        del number
        wire.upgrade("/")

    def leave(self, wire: Wire, number: int) -> None:
        """Undo the join, where there is one beside the connection."""
        del wire, number

    def publish(self) -> bytes:
        """The HTTP request that makes it broadcast."""
        return post("/", self.message)

    def answer(self, text: bytes) -> bytes | None:
        """What a client must say to a message that is no broadcast; None if there is no such message."""
        del text
        return None


def post(path: str, body: bytes, headers: bytes = b"") -> bytes:
    """A POST request as bytes."""
    return (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (path.encode(), headers, len(body), body)
    )


def free_port() -> int:
    """A port of loopback that is free now, and none of those that clients are given."""
    while True:
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
