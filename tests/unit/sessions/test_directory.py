"""What is done to the sessions of a user on this replica."""

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from gateway.sessions.commands import CloseSessions
from gateway.sessions.directory import CLOSED_PER_TURN, Directory


class Sessions:
    """Sessions of user 42, and which of them were closed."""

    def __init__(self, number: int) -> None:
        self.closed: list[str] = []
        self.clients = {f"s{n}": self._client(f"s{n}") for n in range(number)}

    def _client(self, name: str) -> Any:
        def go_away() -> bool:
            self.closed.append(name)
            return True

        return SimpleNamespace(id=name, go_away=go_away)

    def find(self, user: str) -> Any:
        return self if user == "42" else None


def directory(sessions: Any) -> Directory:
    unused: Any = None
    return Directory(sessions, unused, unused, unused, unused)


async def test_sessions_are_closed_some_in_each_turn() -> None:
    sessions = Sessions(1000)
    closing = asyncio.ensure_future(directory(sessions).close_here(CloseSessions("42")))
    seen = [0]
    while not closing.done():
        await asyncio.sleep(0)
        seen.append(len(sessions.closed))

    assert (closing.result(), len(sessions.closed)) == (1000, 1000)
    assert max(after - before for before, after in pairwise(seen)) <= CLOSED_PER_TURN


async def test_those_that_are_meant_are_closed() -> None:
    for command, closed in (
        (CloseSessions("42", only=("s1", "s3", "gone")), ["s1", "s3"]),
        (CloseSessions("42", keep=("s0", "s2")), ["s1", "s3"]),
        (CloseSessions("43"), []),
    ):
        sessions = Sessions(4)
        assert await directory(sessions).close_here(command) == len(closed)
        assert sessions.closed == closed
