"""Gateway, as the scenarios need it: on the memory bus or on NATS, with presence or without."""

import json
import sys
import time
from pathlib import Path
from typing import Final

from bench.servers.base import EVENT, PAYLOAD, TOPIC, Server, free_port, post
from bench.wire import LoadError, Wire
from gateway.auth.tokens import mint

API_KEY: Final = "bench"

_SECRET: Final = "a secret of the benchmark, long enough for HS256"  # noqa: S105 -- guards nothing
_CONFIG: Final = """
[server]
public = "127.0.0.1:{public}"
internal = "127.0.0.1:{internal}"
[bus]
url = "{bus}"
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
scopes = ["publish", "read", "manage"]
[upstream]
url = "{upstream}"
secrets = ["whsec_YSBzZWNyZXQgb2YgdGhlIGJlbmNobWFyaywgMzIgYg=="]
{rules}
[[channels]]
pattern = "room:*"
presence = {presence}
push = "{push}"
"""


class Gateway(Server):
    """A replica; each client has a signed token of its own, speaks protocol V2 and joins one channel.

    Args:
        presence: Whether the channel shows its members who else is there.
        devices: Whether the clients say which device they are on.
        upstream: The backend that answers pushes; empty to deny them.
        rules: Channel rules that come before the one of the clients' channel, in TOML.
    """

    def __init__(
        self,
        bus: str = "memory://",
        *,
        presence: bool = False,
        devices: bool = False,
        upstream: str = "",
        rules: str = "",
    ) -> None:
        super().__init__()
        self.publish_port = free_port()
        self._bus = bus
        self._presence = presence
        self._devices = devices
        self._upstream = upstream
        self._rules = rules

    def command(self, directory: Path) -> list[str]:
        config = directory / "gateway.toml"
        config.write_text(
            _CONFIG.format(
                public=self.port,
                internal=self.publish_port,
                bus=self._bus,
                secret=_SECRET,
                key=API_KEY,
                presence=str(self._presence).lower(),
                upstream=self._upstream,
                rules=self._rules,
                push="upstream" if self._upstream else "deny",
            )
        )
        return [sys.executable, "-m", "gateway", "serve", "--config", str(config)]

    def user(self, number: int) -> str:
        """A client's user: the subject of its token."""
        return str(number)

    def topic(self, number: int) -> str:
        """What a client joins."""
        del number
        return TOPIC

    def path(self, number: int) -> str:
        """Path and query of a client's WebSocket request, its token included."""
        token = mint(_SECRET, sub=self.user(number), ttl_seconds=3600, now=time.time())
        device = f"&device_id=device-{number}" if self._devices else ""
        return f"/socket/websocket?vsn=2.0.0&token={token}{device}"

    def joining(self, number: int) -> bytes:
        """The message that joins a client."""
        return b'["1","1","%b","phx_join",{}]' % self.topic(number).encode()

    def join(self, wire: Wire, number: int) -> None:
        wire.upgrade(self.path(number))
        wire.send(self.joining(number))
        check_joined(wire.receive())

    def publish(self) -> bytes:
        body = b'{"topic":"%b","event":"%b","payload":%b}' % (
            TOPIC.encode(),
            EVENT.encode(),
            PAYLOAD,
        )
        return post("/v1/publish", body, b"Authorization: Bearer %b\r\n" % API_KEY.encode())


class LonelyGateway(Gateway):
    """A replica on NATS whose clients each join a topic of their own."""

    def __init__(self, bus: str) -> None:
        super().__init__(bus, devices=True)

    def topic(self, number: int) -> str:
        return f"room:{number}"


def check_joined(text: bytes) -> None:
    """Make sure that a message is the good answer to a join."""
    reply = json.loads(text)
    if reply[3] != "phx_reply" or reply[4]["status"] != "ok":
        raise LoadError(f"join refused: {reply}")
