"""Tells subscribers when the server really has their subscriptions.

A NATS server handles the lines of one connection in their order, so the answer to a PING sent after
some SUBs says that they stand. All who subscribe in one turn of the event loop share one PING, and
several PINGs may be under way.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Final, Protocol

from gateway.errors import BusUnavailable, SubscriptionRefused

SPREAD_SECONDS: Final = 0.005
"""How long the servers of a cluster take to tell each other of a new interest."""


class Listening(Protocol):
    """Something that gets the messages of a subject.

    Attributes:
        number: Its id on the current connection, set by that.
        refusal: The server's words while it does not have the subscription; else empty.
    """

    number: int
    refusal: str

    @property
    def subject(self) -> str: ...

    @property
    def closed(self) -> bool: ...

    def receive(self, subject: bytes, headers: bytes, body: bytes) -> None: ...


class Line(Protocol):
    """A connection to a server, as far as confirming goes."""

    @property
    def clustered(self) -> bool:
        """Whether there are other servers, to which publishers may be connected."""

    def listen(self, subscriptions: Iterable[Listening]) -> None:
        """Send a SUB for each."""

    def ping(self) -> "asyncio.Future[bool]":
        """Send a PING behind all SUBs; done when its PONG arrives, which may be never."""


class _Batch:
    """Subscriptions that share a PING."""

    __slots__ = ("members", "refused", "settled")

    def __init__(self) -> None:
        self.members: list[Listening] = []
        self.refused: dict[str, str] = {}  # the server's words, by subject
        # True when the server has answered, False when it never will. A result, not an exception:
        # there may be nobody left to see it.
        self.settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class Confirmations:
    """Subscribes and confirms on one connection."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._gathering: _Batch | None = None
        self._asked: deque[_Batch] = deque()  # in the order in which the server will answer
        self._spreading: set[_Batch] = set()
        self._stopped = False

    async def confirm(self, subscription: Listening) -> None:
        """Subscribe, and wait until the server has it.

        When this raises or is cancelled, the subscription is the caller's to close.

        Raises:
            BusUnavailable: The connection was lost first.
            SubscriptionRefused: The server denies the subject.
        """
        refused = await self.confirm_all((subscription,))
        if subscription.subject in refused:
            raise SubscriptionRefused(refused[subscription.subject])

    async def confirm_all(self, subscriptions: Iterable[Listening]) -> dict[str, str]:
        """Subscribe many; returns the subjects the server denies, each with its words.

        Raises:
            BusUnavailable: The connection was lost first.
        """
        if self._stopped:
            raise BusUnavailable("the connection is lost")
        batch = self._gathering
        if batch is None:
            batch = self._gathering = _Batch()
            asyncio.get_running_loop().call_soon(self._ask)
        batch.members.extend(subscriptions)
        # shielded, because others wait for it too
        if not await asyncio.shield(batch.settled):
            raise BusUnavailable("the connection was lost before the subscription stood")
        return batch.refused

    def refuse(self, subject: str, words: str) -> None:
        """The server denied a subject.

        It complains while it reads the SUBs, so the batch meant is the next it will answer.
        """
        if self._asked:
            self._asked[0].refused[subject] = words

    def refuse_one(self, words: str) -> None:
        """The server had no room for one: of a batch those that came last."""
        batch = self._asked[0] if self._asked else _Batch()
        while batch.members:
            subject = batch.members.pop().subject
            if subject not in batch.refused:
                batch.refused[subject] = words
                return

    def stop(self) -> None:
        """The connection is lost: nothing more will be confirmed."""
        self._stopped = True
        gathering = () if self._gathering is None else (self._gathering,)
        for batch in (*self._asked, *self._spreading, *gathering):
            _settle(batch, confirmed=False)
        self._asked.clear()
        self._spreading.clear()
        self._gathering = None

    def _ask(self) -> None:
        batch, self._gathering = self._gathering, None
        if batch is None:
            return
        self._asked.append(batch)  # first: whatever becomes of the line, stop() is to find it
        batch.members = [member for member in batch.members if not member.closed]
        self._line.listen(batch.members)
        self._line.ping().add_done_callback(self._answered)

    def _answered(self, _pong: "asyncio.Future[bool]") -> None:
        if self._stopped:
            return
        batch = self._asked.popleft()
        if self._line.clustered:
            self._spreading.add(batch)
            asyncio.get_running_loop().call_later(SPREAD_SECONDS, self._spread, batch)
        else:
            _settle(batch, confirmed=True)

    def _spread(self, batch: _Batch) -> None:
        self._spreading.discard(batch)
        _settle(batch, confirmed=True)


def _settle(batch: _Batch, *, confirmed: bool) -> None:
    if not batch.settled.done():
        batch.settled.set_result(confirmed)
