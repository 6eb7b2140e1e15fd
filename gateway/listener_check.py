"""Finds out whether anybody listens on topics, by the messages that are published to them.

No replica is asked. A socket of this one that is on the topic listens, for certain. Else the message says
that its sender wants to know of no responders: then the bus server tells that no replica is subscribed, so
that nobody got it, for certain. What is left is not known: some replica is subscribed, because of a user who
is there, or was a few seconds ago.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from types import TracebackType
from typing import Self

from gateway.bus.base import Bus, NoResponders
from gateway.errors import BusError
from gateway.hub.registry import Registry


class ListenerCheck:
    """Whether anybody listens on each of some topics; a context, after which nobody waits any more."""

    def __init__(self, bus: Bus, here: Registry) -> None:
        self._bus = bus
        self._here = here
        self._known: dict[str, bool] = {}
        self._waiting: defaultdict[str, list[NoResponders]] = defaultdict(list)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for waiting in self._all():
            waiting.cancel()

    def ask(self, topic: str) -> NoResponders | None:
        """What to publish a message with; None where it is known already."""
        if self._here.get(topic) is not None:
            self._known[topic] = True
            return None
        waiting: NoResponders = asyncio.get_running_loop().create_future()
        self._waiting[topic].append(waiting)
        return waiting

    async def answers(self) -> dict[str, bool]:
        """By topic, when all was published: whether anybody listens. What is not known is not there."""
        if not all(waiting.done() for waiting in self._all()):
            with contextlib.suppress(BusError):
                await self._bus.flush()
        unheard = [
            topic for topic, each in self._waiting.items() if all(one.done() for one in each)
        ]
        return dict.fromkeys(unheard, False) | self._known

    def _all(self) -> Iterable[NoResponders]:
        return chain.from_iterable(self._waiting.values())
