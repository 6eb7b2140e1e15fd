"""What every server under test has in common."""

import os
import random
import socket
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Final

from bench.wire import PING, LoadError, Wire, masked

PAYLOAD_BYTES: Final = 128
_BRACES: Final = len(b'{"data":""}')
PAYLOAD: Final = b'{"data":"%b"}' % (b"x" * (PAYLOAD_BYTES - _BRACES))
"""What every server delivers: a JSON object of 128 bytes."""

TOPIC: Final = "room:bench"
EVENT: Final = "event"
WEBSOCKET_PING: Final = (masked(PING, b""), b"")


_ports = cycle(random.sample(range(30_000, 32_768), 2_768))


class Server(ABC):
    """A server and its dialect."""

    separator: bytes = b""
    """What stands between the messages of one WebSocket frame; empty where each has its own."""

    ready_path = "/readyz"
    """What answers, on the port that is published to, once it serves."""

    running_pid = 0
    """The process, where somebody else has started it."""

    def __init__(self, members: int = 0) -> None:
        self.members = members
        """Clients of each topic; 0 to have them all on one."""
        self.port = free_port()
        self.publish_port = self.port

    def missing(self) -> str:
        """What would have to be done before it can be started here; empty if nothing."""
        return ""

    @abstractmethod
    def command(self, directory: Path) -> list[str]:
        """What starts it; ``directory`` is for its files."""

    def environment(self) -> dict[str, str]:
        """Its environment: no ``GATEWAY_`` variables, Node in production mode."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")
        }
        return kept | {"NODE_ENV": "production"}

    def port_of(self, number: int) -> int:
        """Where a client connects."""
        del number
        return self.port

    def topic(self, number: int) -> str:
        """What a client joins; names of the same length, as far as there are several."""
        return f"room:{10_000 + number // self.members}" if self.members else TOPIC

    def path(self, number: int) -> str:
        """Path and query of a client's WebSocket request; ``number`` tells clients apart."""
        del number
        return "/"

    def steps(self, number: int) -> Sequence[tuple[bytes, bytes]]:
        """What a client says to join, each time with a part of the answer; empty to say nothing first."""
        del number
        return ()

    def join(self, wire: Wire, number: int) -> None:
        """Make the connection one of the clients that get broadcasts."""
        wire.upgrade(self.path(number))
        for said, mark in self.steps(number):
            if said:
                wire.send(said)
            check_answer(wire.receive(), mark)

    def leave(self, wire: Wire, number: int) -> None:
        """Undo the join, where there is one beside the connection."""
        del wire, number

    def text(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        """The WebSocket message that each client of the topic must get, as of Phoenix Channels V2."""
        return b'[null,null,"%b","%b",%b]' % (topic.encode(), EVENT.encode(), payload)

    def publish(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        """The HTTP request that makes it broadcast."""
        return post("/", self.text(payload, topic))

    def heartbeat(self) -> tuple[bytes, bytes]:
        """The frame that a client keeps its connection with, and a part of the answer; empty for a pong."""
        return WEBSOCKET_PING

    def answer(self, text: bytes) -> bytes | None:
        """What a client must say to a message that is no broadcast; None if there is no such message."""
        del text
        return None


def check_answer(text: bytes, mark: bytes) -> None:
    """Make sure that a server's answer to a step of joining is the good one."""
    if mark not in text:
        raise LoadError(f"expected {mark!r}, got {text[:200]!r}")


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
