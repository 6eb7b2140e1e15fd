"""Gateway, as the scenarios need it: on the memory bus or on NATS, with presence or without."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.builds import WORKING_TREE, Build
from bench.servers.base import EVENT, PAYLOAD, TOPIC, Server, free_port, post
from bench.wire import TEXT, LoadError, Wire, masked
from gateway.auth.tokens import mint

API_KEY: Final = "bench"

SECRET: Final = "a secret of the benchmark, long enough for HS256"  # noqa: S105 -- guards nothing
_CONFIG: Final = """
[server]
public = "127.0.0.1:{public}"
internal = "127.0.0.1:{internal}"
[bus]
url = "{bus}"
[auth]
secrets = ["{secret}"]
[limits]
{limits}
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
events = {events}
{sections}
[[channels]]
pattern = "room:*"
presence = {presence}
push = "{push}"
"""


PHOENIX_HEARTBEAT: Final = (
    masked(TEXT, b'[null,"h","phoenix","heartbeat",{}]'),
    b'"h","phoenix","phx_reply"',
)

_SILENT_CLIENTS: Final = "idle_timeout_seconds = 43200  # they send no heartbeats"

_ALL_FEATURES: Final = """
[sessions]
max_per_user = 10
when_full = "close_oldest"
same_device = "replace"
[[channels]]
pattern = "hall:*"
presence = true
history = { messages = 100, seconds = 3600 }
[[channels]]
pattern = "echo:*"
push = "broadcast"
[[channels]]
pattern = "mute:*"
push = "broadcast"
echo = false
"""


class Gateway(Server):
    """A replica; each client has a signed token of its own, speaks protocol V2 and joins one channel.

    Args:
        presence: Whether the channel shows its members who else is there.
        devices: Whether the clients say which device they are on.
        upstream: The backend that answers pushes; empty to deny them.
        sections: More of the configuration, in TOML: tables, and channel rules that come before the one
            of the clients' channel.
        limits: What ``[limits]`` says.
        events: What ``upstream.events`` lists.
        build: The program.
        members: Clients of each topic; 0 to have them all on one.
    """

    def __init__(
        self,
        bus: str = "memory://",
        *,
        presence: bool = False,
        devices: bool = False,
        upstream: str = "",
        sections: str = "",
        limits: str = _SILENT_CLIENTS,
        events: Sequence[str] = (),
        build: Build = WORKING_TREE,
        members: int = 0,
    ) -> None:
        super().__init__(members)
        self.publish_port = free_port()
        self._bus = bus
        self._presence = presence
        self._devices = devices
        self._upstream = upstream
        self._sections = sections
        self._limits = limits
        self._events = list(events)
        self._build = build

    def command(self, directory: Path) -> list[str]:
        config = directory / "gateway.toml"
        config.write_text(
            _CONFIG.format(
                public=self.port,
                internal=self.publish_port,
                bus=self._bus,
                secret=SECRET,
                key=API_KEY,
                presence=str(self._presence).lower(),
                upstream=self._upstream,
                sections=self._sections,
                limits=self._limits,
                events=json.dumps(self._events),
                push="upstream" if self._upstream else "deny",
            )
        )
        return [sys.executable, "-P", *self.program(directory), "serve", "--config", str(config)]

    def program(self, directory: Path) -> list[str]:
        """What the interpreter is told to run; ``directory`` is for its files."""
        del directory
        return ["-m", "gateway"]

    def environment(self) -> dict[str, str]:
        return super().environment() | self._build.environment()

    def user(self, number: int) -> str:
        """A client's user: the subject of its token."""
        return str(number)

    def path(self, number: int) -> str:
        """Path and query of a client's WebSocket request, its token included."""
        token = mint(SECRET, sub=self.user(number), ttl_seconds=43_200, now=time.time())
        device = f"&device_id=device-{number}" if self._devices else ""
        return f"/socket/websocket?vsn=2.0.0&token={token}{device}"

    def joining(self, number: int) -> bytes:
        """The message that joins a client."""
        return b'["1","1","%b","phx_join",{}]' % self.topic(number).encode()

    def steps(self, number: int) -> Sequence[tuple[bytes, bytes]]:
        return ((self.joining(number), b'"phx_reply",{"status":"ok"'),)

    def heartbeat(self) -> tuple[bytes, bytes]:
        return PHOENIX_HEARTBEAT

    def leave(self, wire: Wire, number: int) -> None:
        wire.send(b'["1","2","%b","phx_leave",{}]' % self.topic(number).encode())
        events = {json.loads(wire.receive())[3] for _ in range(2)}
        if events != {"phx_reply", "phx_close"}:
            raise LoadError(f"no answer to leaving: {events}")

    def publish(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        body = b'{"topic":"%b","event":"%b","payload":%b}' % (
            topic.encode(),
            EVENT.encode(),
            payload,
        )
        return post("/v1/publish", body, b"Authorization: Bearer %b\r\n" % API_KEY.encode())


class LonelyGateway(Gateway):
    """A replica on NATS whose clients each join a topic of their own."""

    def __init__(self, bus: str) -> None:
        super().__init__(bus, devices=True)

    def topic(self, number: int) -> str:
        return f"room:{number}"


class EquippedGateway(Gateway):
    """A replica that has all features configured: limits of sessions and rates, presence, history, pushes.

    Args:
        alone: Whether its clients each join a topic of their own, instead of one that is everybody's.
    """

    def __init__(
        self,
        build: Build,
        bus: str = "memory://",
        *,
        alone: bool = False,
        idle_seconds: float = 3600,
        upstream: str = "",
        events: Sequence[str] = (),
        members: int = 0,
    ) -> None:
        super().__init__(
            bus,
            members=members,
            devices=True,
            upstream=upstream,
            sections=_ALL_FEATURES,
            # a rate that is counted and never reached
            limits=f"idle_timeout_seconds = {idle_seconds}\nmessages_per_second = 1000000",
            events=events,
            build=build,
        )
        self._alone = alone

    def topic(self, number: int) -> str:
        return f"room:{number}" if self._alone else super().topic(number)


class FullGateway(EquippedGateway):
    """The same with all features at work: presence, positions, personal topics, events to a backend.

    Each client joins a hall of twenty, and its user's personal topic.
    """

    def __init__(self, build: Build, upstream: str) -> None:
        events = ("session.started", "session.ended", "user.online", "user.offline")
        super().__init__(build, upstream=upstream, events=events)

    def join(self, wire: Wire, number: int) -> None:
        wire.upgrade(self.path(number))
        for topic in (f"hall:{number // 20}", f"user:{self.user(number)}"):
            wire.send(b'["1","1","%b","phx_join",{"resume":null}]' % topic.encode())
            while json.loads(text := wire.receive())[3].startswith("presence_"):
                pass
            check_joined(text)
        wire.rest = b""  # who else is there is not looked at


def check_joined(text: bytes) -> None:
    """Make sure that a message is the good answer to a join."""
    reply = json.loads(text)
    if reply[3] != "phx_reply" or reply[4]["status"] != "ok":
        raise LoadError(f"join refused: {reply}")
