"""The list of all sockets: who of them is closed when tokens are revoked."""

import asyncio
import time
from itertools import pairwise
from typing import Any

from gateway.auth.tokens import Claims
from gateway.channels.connections import CLOSED_PER_TURN, LEFT_PER_TURN, Connections
from gateway.metrics import Metrics


class Callbacks:
    """Nothing waits for the backend."""

    def drop(self, *_: str) -> None: ...


class FakeConnection:
    """A connection that remembers whether it was sent away."""

    def __init__(self, user: str | None, *, closed: bool = False) -> None:
        self.claims = None if user is None else Claims(user, 0.0)
        self.closed = closed

    def go_away(self) -> bool:
        was_open, self.closed = not self.closed, True
        return was_open

    def leave_topic(self, topic: str) -> bool:
        return topic == "joined" and not self.closed


Socket: Any = FakeConnection  # it has what the list of connections uses


def connections_of(revoked: set[str]) -> Connections:
    """Connections to which these users' tokens are revoked."""
    absent: Any = None  # nothing here needs them
    idle: Any = Callbacks()
    return Connections(
        callbacks=idle,
        limits=absent,
        metrics=Metrics(),
        wheel=absent,
        revoked=lambda claims: claims.user in revoked,
        memory_full=lambda: False,
        clock=time.monotonic,
    )


async def test_sockets_of_revoked_tokens_are_closed_and_counted_once() -> None:
    revoked: set[str] = set()
    connections = connections_of(revoked)
    sockets = [Socket("42"), Socket("42"), Socket("43"), Socket(None), Socket("42", closed=True)]
    for socket in sockets:
        connections.add(socket, "websocket")
    assert await connections.close_revoked() == 0

    revoked.add("42")
    assert await connections.close_revoked() == 2
    assert await connections.close_revoked() == 0
    assert [socket.closed for socket in sockets] == [True, True, False, False, True]


async def test_sockets_of_revoked_tokens_are_closed_some_in_each_turn() -> None:
    connections = connections_of({"42"})
    sockets = [Socket("42", closed=True) for _ in range(500)]  # they are not new ones
    for socket in sockets:
        connections.add(socket, "websocket")
        socket.closed = False
    closings = [asyncio.ensure_future(connections.close_revoked()) for _ in range(2)]
    turns = [0]
    while not all(closing.done() for closing in closings):
        await asyncio.sleep(0)
        turns.append(sum(socket.closed for socket in sockets))

    assert sum(closing.result() for closing in closings) == 500
    assert max(after - before for before, after in pairwise(turns)) <= CLOSED_PER_TURN


async def test_a_token_revoked_while_its_handshake_was_under_way_opens_nothing() -> None:
    connections = connections_of({"42"})
    late, other = Socket("42"), Socket("43")
    connections.add(late, "websocket")
    connections.add(other, "websocket")

    assert late.closed
    assert not other.closed
    assert len(connections.open) == 2, "it is removed when it has ended"


async def test_a_user_is_taken_off_a_topic_on_all_her_sockets() -> None:
    connections = connections_of(set())
    for socket in (
        Socket("42"),
        Socket("42", closed=True),
        Socket("42"),
        Socket("43"),
        Socket(None),
    ):
        connections.add(socket, "websocket")

    assert await connections.leave_topic("42", "joined") == 2
    assert await connections.leave_topic("42", "other") == 0
    assert await connections.leave_topic("44", "joined") == 0


async def test_a_user_with_many_sockets_is_taken_off_some_in_each_turn() -> None:
    connections = connections_of(set())
    for _ in range(500):
        connections.add(Socket("42"), "websocket")
    leaving = asyncio.ensure_future(connections.leave_topic("42", "joined"))
    turns = 0
    while not leaving.done():
        await asyncio.sleep(0)
        turns += 1

    assert leaving.result() == 500
    assert turns >= 500 / LEFT_PER_TURN
