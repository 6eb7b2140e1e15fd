"""One call to other replicas: its messages, who has to answer, and when waiting for them is over."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Generic, TypeVar

import msgspec

from gateway.bus.base import NoResponders

A = TypeVar("A")
B = TypeVar("B")

ANSWER_SECONDS: Final = 0.5
"""How long anybody waits for a replica that may be dead."""


EVERYBODY: Final = ("*",)
"""Stands for all replicas that are alive: in a large cluster their names would be longer than any answer."""

MOST_NAMED: Final = 64
"""Replicas that an answer names; where there are more it is everybody."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A call on its way. MessagePack, like its answer.

    Attributes:
        asker: The replica that made it.
        number: Of the call, on that replica.
        body: The command.
    """

    asker: str
    number: int
    body: bytes


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """What one replica answers, or a part of it: the bus carries only so much at a time.

    Attributes:
        named: Replicas that can answer too, as far as this one knows.
        part: Number of the part, from 0 on.
        more: Whether another part follows.
        doubted: Replicas of which this one cannot say whether they can, or :data:`EVERYBODY`, as for a
            release that says nothing about it; None where it was asked by itself, and so need not say.
    """

    replica: str
    number: int
    named: tuple[str, ...]
    body: bytes
    part: int = 0
    more: bool = False
    doubted: tuple[str, ...] | None = EVERYBODY


class Cover(msgspec.Struct, frozen=True):
    """Who answered a call.

    Attributes:
        missing: Replicas that should have answered and did not.
        complete: Whether everybody answered who has something to say.
    """

    missing: tuple[str, ...] = ()
    complete: bool = True


class Answers(msgspec.Struct, Generic[A], frozen=True):
    """What came of a call."""

    by_replica: dict[str, A]
    cover: Cover

    @property
    def values(self) -> list[A]:
        """The answers, whosever they are."""
        return list(self.by_replica.values())

    def decoded(self, decode: Callable[[A], B]) -> "Answers[B]":
        """These answers, decoded; one that cannot be read counts as missing."""
        read: dict[str, B] = {}
        missing = set(self.cover.missing)
        for replica, body in self.by_replica.items():
            try:
                read[replica] = decode(body)
            except ValueError:
                missing.add(replica)
        return Answers(read, Cover(tuple(sorted(missing)), self.cover.complete and not missing))


class PendingCall:
    """One call that waits for its answers.

    Args:
        named: The replicas that are known to have an answer.
        open_ended: Whether there may be others: then one is waited for who knows them, and those it names.
        ask: Asks one more replica by itself. Without it those that are doubted are let alone.
    """

    def __init__(
        self,
        named: Iterable[str],
        *,
        open_ended: bool,
        ask: Callable[[str], None] | None = None,
    ) -> None:
        self._named = set(named)
        self._open_ended = open_ended
        self._ask = ask
        self._bodies: dict[str, bytes] = {}
        self._parts: dict[str, list[bytes]] = {}
        self._unreachable: dict[str, NoResponders] = {}
        self._decided = asyncio.Event()
        self._look()

    def answered(self, answer: Answer) -> None:
        """A replica answered; if a part of its answer was lost, it counts as one that did not.

        One that was asked in two ways answers twice: what it did the second time does not count.
        """
        self._named.update(answer.named)
        parts = self._parts.setdefault(answer.replica, [])
        if answer.part == len(parts) and answer.replica not in self._bodies:
            parts.append(answer.body)
            if not answer.more:
                self._bodies[answer.replica] = b"".join(self._parts.pop(answer.replica))
                if answer.doubted is not None:
                    self._told(answer.doubted)
        self._look()

    def echoed(self, named: Iterable[str], doubted: Iterable[str]) -> None:
        """The call came back to its own replica, which is subscribed too, and knows these."""
        if self._ask is not None:
            self._named.update(named)
            self._told(doubted)
            self._look()

    def silence(self, live: Iterable[str]) -> None:
        """It was heard, and for a while nobody has said who may have an answer: each that is alive may."""
        if self._open_ended:
            self.echoed((), live)

    def _told(self, doubted: Iterable[str]) -> None:
        """All are known who may have an answer: those that are named by now, and these."""
        self._open_ended = False
        if self._ask is not None:
            for replica in set(doubted) - self._named - self._bodies.keys():
                self._named.add(replica)
                self._ask(replica)

    def no_responders(self, replica: str = "") -> NoResponders:
        """To be done when a replica turns out not to be there; without a name, when nobody is."""
        if replica not in self._unreachable:
            future = self._unreachable[replica] = asyncio.get_running_loop().create_future()
            future.add_done_callback(partial(self._not_there, replica))
        return self._unreachable[replica]

    def close(self) -> None:
        """Nobody waits any more."""
        for future in self._unreachable.values():
            future.cancel()

    def waits_for(self) -> list[str]:
        """Replicas that are known to have an answer and have not answered yet."""
        return sorted(self._named - self._bodies.keys())

    async def wait(self, seconds: float) -> bool:
        """Wait for all who have to answer, but not longer than this; returns whether they have."""
        try:
            async with asyncio.timeout(seconds):
                return await self._decided.wait()
        except TimeoutError:
            return False

    def answers(self, live: Iterable[str]) -> Answers[bytes]:
        """What is known by now.

        Args:
            live: All replicas that are alive: each may be the one that did not answer, if nobody did.
        """
        missing = self.waits_for()
        if self._open_ended:
            missing = sorted({*missing, *live} - self._bodies.keys())
        return Answers(self._bodies, Cover(tuple(missing), complete=not missing))

    def _not_there(self, replica: str, found: NoResponders) -> None:
        if not found.cancelled():
            self._open_ended = False
            self._named.discard(replica)
            self._look()

    def _look(self) -> None:
        if not self._open_ended and self._named <= self._bodies.keys():
            self._decided.set()


def in_parts(answer: Answer, part_bytes: int) -> list[Answer]:
    """A whole answer as answers whose bodies have at most so many bytes."""
    starts = range(0, max(len(answer.body), 1), part_bytes)
    return [
        msgspec.structs.replace(
            answer,
            body=answer.body[start : start + part_bytes],
            part=part,
            more=start != starts[-1],
        )
        for part, start in enumerate(starts)
    ]


encode: Final = msgspec.msgpack.Encoder().encode
decode_request: Final = msgspec.msgpack.Decoder(Request).decode
decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode
