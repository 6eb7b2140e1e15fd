"""The interface of a message history: the store of published messages, in one order for all topics.

What every history promises:

- What was appended has an offset, a number from 1 on that grows with every message of any topic. Messages
  of one topic are delivered on the topic's bus subject in the order of their offsets, each with its
  :class:`~gateway.bus.stream_position.StreamPosition`. They are stored before they are delivered.
- An id is a message's name within its topic: the first append with it wins, and a repeat within
  :data:`ID_SECONDS` gets the first one's receipt and is not delivered.
- Offsets mean something within one epoch. A store that began anew has another epoch.
- At least the messages that their topic's rule retains are kept, unless an operator takes some away, by a
  limit of the store's or by hand. It may be more: whoever reads applies the limits.

What no history promises: that a stored message is delivered. The carrier may lose it, and whoever wants
it must compare offsets.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from gateway.errors import HistoryProblem

ID_SECONDS: Final = 120
"""How long a store remembers ids."""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A stored message.

    Attributes:
        offset: Its place in the history of all topics.
        time: When it was stored, in Unix seconds of the store's clock.
    """

    offset: int
    time: float
    body: bytes


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What became of an append.

    Attributes:
        offset: Where the message stands; a duplicate's is that of the first with its id.
        time: When it was stored, in Unix seconds of the store's clock; a duplicate's equals the first's.
            JetStream does not say it, so it is reckoned: off the truth by less than the way to the server
            and back.
        duplicate: Whether it had been appended before.
    """

    offset: int
    time: float
    duplicate: bool


class Narrowed(msgspec.Struct, frozen=True, gc=False):
    """Until a time, in Unix seconds of its clock, a store kept only so many messages of each topic."""

    messages: int
    until: float


class Tip(msgspec.Struct, frozen=True, gc=False):
    """The end of the history of all topics.

    Attributes:
        epoch: Which counting of offsets this is.
        offset: The last that was given to a message; 0 before the first.
        time: Now, in Unix seconds of the store's clock.
        first: The offset of the oldest message that is still kept, of any topic; one more than
            :attr:`offset` when none is.
        kept_since: When that message was stored; when none is kept, when the last one was. What lies before
            it is gone, whatever took it, and nothing of that was stored later.
        narrowed: That fewer messages of each topic were kept than now, until not long ago.
    """

    epoch: str
    offset: int
    time: float
    first: int
    kept_since: float
    narrowed: Narrowed | None = None


class MessageHistory(Protocol):
    """The store, as one replica uses it.

    All that asks the store raises ``HistoryUnavailable``, which is a ``BusUnavailable``: there is no answer,
    and certainly nothing was stored or erased.
    """

    @property
    def problem(self) -> HistoryProblem | None:
        """Why nothing can be stored or read now; None when it can."""

    @property
    def epoch(self) -> str:
        """Which counting of offsets is current, as far as is known here; empty before it is."""

    async def start(self) -> asyncio.Task[None] | None:
        """Begin to watch the store, and return at once.

        Returns:
            The task that does so until :meth:`close`; None where nothing has to.
        """

    async def close(self) -> None:
        """Stop watching it. Idempotent."""

    def listen(self, listener: Callable[[], None]) -> None:
        """Call the listener, from now on, when there is reason to compare offsets and epoch.

        Messages may have been stored then that were not delivered, or the epoch may be another: when the
        store can be used, for the first time or again; when another server leads it; when it began anew.
        """

    async def append(self, topic: str, body: bytes, *, id: str | None = None) -> Receipt:  # noqa: A002
        """Store a message, and have it delivered on the topic's subject.

        Args:
            topic: One whose rule keeps a history.
            id: Its name within the topic, if it has one.

        Raises:
            OutcomeUnknown: It was sent and not acknowledged; a repeat with the same id settles it.
            EnvelopeTooLarge: The server does not take it.
        """

    async def after(
        self, topic: str, offset: int, *, limit: int, upto: int | None = None
    ) -> list[Stored]:
        """The first messages of a topic above an offset, oldest first.

        Args:
            limit: At most so many.
            upto: Nothing above this offset. Everything of the topic up to it is there, whichever server
                answers; without it the newest messages may be missing where servers replicate.
        """

    async def newest(self, topic: str, count: int) -> list[Stored]:
        """The last messages of a topic, oldest first; what was stored before the call is among them."""

    async def tip(self) -> Tip:
        """The end of the history: nothing that was acknowledged before the call lies above it.

        Callers share one question to the store, asked after the last of them came.
        """

    async def time_at(self, offset: int) -> float | None:
        """When the message at an offset was stored, of whichever topic; None when there is none."""

    async def last_offsets(self, topics: Iterable[str]) -> dict[str, int]:
        """The offset of the last kept message of each topic that has any.

        Where servers replicate, one that lags behind may answer: the offsets are what is there at least.
        """

    async def erase(self, topic: str) -> int:
        """Forget all messages of a topic; returns how many.

        Raises:
            OutcomeUnknown: It was asked and not answered.
        """
