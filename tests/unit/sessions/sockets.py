"""Clients without a connection."""

from gateway.auth.tokens import Claims
from gateway.device import Device
from gateway.sessions.client import Origin


class Socket:
    """A socket of a user, or an anonymous one, which nobody is to close."""

    def __init__(
        self,
        name: str,
        user: str | None,
        device: Device | None = None,
        *,
        max_sessions: int | None = None,
    ) -> None:
        self.id = name
        self.claims = None if user is None else Claims(user, 0.0, max_sessions=max_sessions)
        self.origin = Origin("websocket", "2.0.0", "", "", device or Device(name))
        self.state = b'{"cart":7}'
        self.topics: list[str] = []

    def last_seen(self) -> float:
        raise NotImplementedError

    def end_session(self, reason: str) -> None:
        raise NotImplementedError

    def go_away(self) -> bool:
        raise NotImplementedError

    def leave_topic(self, topic: str) -> bool:
        raise NotImplementedError
