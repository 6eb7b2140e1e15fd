"""Has the members of a topic join again, a slice of them in each turn of the event loop."""

import asyncio
from collections import deque
from typing import Final

from gateway.hub.registry import Member, Registry

SLICE_MEMBERS: Final = 128
"""Members told in one turn: some 5 ms, since more than a write belongs to it."""


class Rejoins:
    """Members that are to be told.

    All cease to be members at once, so that none gets a message that seems to follow what it was sent before.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._waiting: deque[tuple[str, Member]] = deque()
        self._scheduled = False

    def begin(self, topic: str) -> None:
        """Messages of a topic are gone: whoever resumes joins again, and is told so."""
        found = self._registry.get(topic)
        for member in tuple(found.members) if found is not None else ():
            if member.encoding.positions:
                self._registry.remove(topic, member)
                self._waiting.append((topic, member))
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        try:
            for _ in range(min(SLICE_MEMBERS, len(self._waiting))):
                topic, member = self._waiting.popleft()
                member.outlet.rejoin(topic, member)
        finally:
            # whatever went wrong with one, the others still have to be told
            self._schedule()
