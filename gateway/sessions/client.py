"""The interface of a socket that session code uses, and where the socket comes from."""

from typing import Protocol

import msgspec

from gateway.auth.claims import Claims
from gateway.device import UNKNOWN, Device
from gateway.protocol.messages import Json


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a socket comes from.

    Attributes:
        transport: Such as ``websocket``.
        protocol: Version of the Phoenix protocol.
        ip: The client's address, behind trusted proxies.
        user_agent: As the client sent it, shortened.
        device: What its token says, else what the client says.
        traceparent: Of its handshake (W3C Trace Context), passed on to the backend; empty for none.
    """

    transport: str
    protocol: str
    ip: str
    user_agent: str
    device: Device = UNKNOWN
    traceparent: str = ""


class Client(Protocol):
    """One socket of a known user."""

    @property
    def id(self) -> str:
        """Unique among all sockets of all replicas; the session's id."""

    @property
    def claims(self) -> Claims | None:
        """What its token says."""

    @property
    def origin(self) -> Origin:
        """Where it comes from."""

    @property
    def state(self) -> Json:
        """What the backend keeps with it."""

    @property
    def topics(self) -> list[str]:
        """Topics it has joined."""

    def last_seen(self) -> float:
        """When its last frame came, unix seconds."""

    def end_session(self, reason: str) -> None:
        """Take it off all topics, then close it with 4001: it may not come back by itself."""

    def go_away(self) -> bool:
        """Close it with 1001, it may come back; False if it is closed already."""

    def leave_topic(self, topic: str) -> bool:
        """Take it off a topic; False if it is not on it."""
