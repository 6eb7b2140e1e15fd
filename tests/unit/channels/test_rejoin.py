"""A client that is to join again, by the membership that ends."""

from typing import Any, cast

from gateway.channels.channels import Channels

ROOM = "room:1"


class Attempt:
    """A membership."""

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt


class Socket:
    """As much of a connection as ends a membership."""

    def __init__(self) -> None:
        self.core = self
        services: Any = None  # not needed
        self.channels = Channels(services)
        self.members = cast("dict[str, Attempt]", self.channels.members)
        self.crashed: list[int] = []

    def crash(self, topic: str, attempt: int) -> list[Any]:
        assert topic == ROOM
        self.crashed.append(attempt)
        return []

    def rejoin(self, member: Attempt) -> None:
        """What the hub asks of it."""
        self.channels.crash(cast("Any", self), ROOM, member)


def test_the_membership_that_lost_messages_ends() -> None:
    socket, member = Socket(), Attempt(1)
    socket.members[ROOM] = member
    socket.rejoin(member)

    assert socket.crashed == [1]


def test_who_has_joined_again_or_left_meanwhile_is_let_be() -> None:
    socket, before = Socket(), Attempt(1)
    socket.rejoin(before)
    socket.members[ROOM] = Attempt(2)
    socket.rejoin(before)

    assert socket.crashed == []
