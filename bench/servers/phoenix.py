"""A server that speaks Phoenix Channels and is started by whoever wants it measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.servers.base import EVENT, PAYLOAD, TOPIC, Server, post
from bench.servers.gateway import PHOENIX_HEARTBEAT


@dataclass(frozen=True)
class Place:
    """Where it is, on this machine.

    Attributes:
        socket: Path and query of its WebSocket, with its port: ``http://127.0.0.1:4000/socket/websocket?vsn=2.0.0``.
        publish: What is posted ``{"topic": …, "event": …, "payload": …}`` to, on any port.
        pid: Its process, whose CPU and memory are read.
    """

    socket: str
    publish: str
    pid: int


class Phoenix(Server):
    """The same protocol as Gateway's, with whatever tokens its URL has in it."""

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.port = urlsplit(place.socket).port or 80
        self.publish_port = urlsplit(place.publish).port or 80
        self.running_pid = place.pid

    def missing(self) -> str:
        return "" if Path(f"/proc/{self.place.pid}").exists() else "start it, and name its process"

    def command(self, directory: Path) -> list[str]:
        raise NotImplementedError("it is started by somebody else")

    def path(self, number: int) -> str:
        del number
        found = urlsplit(self.place.socket)
        return f"{found.path}?{found.query}"

    def steps(self, number: int) -> Sequence[tuple[bytes, bytes]]:
        joining = b'["1","1","%b","phx_join",{}]' % self.topic(number).encode()
        return ((joining, b'"status":"ok"'),)

    def publish(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        body = b'{"topic":"%b","event":"%b","payload":%b}' % (
            topic.encode(),
            EVENT.encode(),
            payload,
        )
        return post(urlsplit(self.place.publish).path, body)

    def heartbeat(self) -> tuple[bytes, bytes]:
        return PHOENIX_HEARTBEAT
