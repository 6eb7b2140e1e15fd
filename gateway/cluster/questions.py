"""Questions to other replicas: who has to answer, and when to stop waiting."""

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec

ANSWER_SECONDS: Final = 0.5
"""How long anybody waits for a replica that may be dead."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """A question on its way. MessagePack, like its answer.

    Attributes:
        asker: The replica that wants to know.
        number: Of the question, on that replica.
        body: The question itself.
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
    """

    replica: str
    number: int
    named: tuple[str, ...]
    body: bytes
    part: int = 0
    more: bool = False


class Answers(msgspec.Struct, frozen=True):
    """What came of a question.

    Attributes:
        bodies: By replica.
        missing: Replicas that should have answered and did not.
        complete: Whether everybody answered who has something to say.
    """

    bodies: dict[str, bytes]
    missing: tuple[str, ...]
    complete: bool


class Question:
    """One question that waits for its answers.

    Args:
        named: The replicas that are known to have an answer.
        open_ended: Whether there may be others: then the first answer is waited for, and those it names.
    """

    def __init__(self, named: Iterable[str], *, open_ended: bool) -> None:
        self._named = set(named)
        self._open_ended = open_ended
        self._bodies: dict[str, bytes] = {}
        self._parts: dict[str, list[bytes]] = {}
        self._decided = asyncio.Event()
        self._look()

    def answered(self, answer: Answer) -> None:
        """A replica answered; if a part of its answer was lost, it counts as one that did not."""
        self._named.update(answer.named)
        parts = self._parts.setdefault(answer.replica, [])
        if answer.part == len(parts):
            parts.append(answer.body)
            if not answer.more:
                self._bodies[answer.replica] = b"".join(parts)
                self._open_ended = False
        self._look()

    def unheard(self) -> None:
        """Nobody at all got the question."""
        self._open_ended = False
        self._named.clear()
        self._look()

    async def wait(self, live: Iterable[str], seconds: float = ANSWER_SECONDS) -> Answers:
        """Wait for what is missing.

        Args:
            live: All replicas that are alive: each may be the one that did not answer, if nobody did.
            seconds: For how long, at most.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._decided.wait()
        except TimeoutError:
            return self.give_up(live)
        return Answers(self._bodies, (), complete=True)

    def give_up(self, live: Iterable[str]) -> Answers:
        """What is known, without waiting any longer."""
        expected = set(live) if self._open_ended else self._named
        missing = sorted(expected - self._bodies.keys())
        return Answers(self._bodies, tuple(missing), complete=False)

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


_encode = msgspec.msgpack.Encoder().encode
_decode_request = msgspec.msgpack.Decoder(Request).decode
_decode_answer = msgspec.msgpack.Decoder(Answer).decode


def encode(message: Request | Answer) -> bytes:
    """A request or an answer as bytes."""
    return _encode(message)


def decode_request(data: bytes) -> Request:
    """A request from its bytes.

    Raises:
        ValueError: It is none.
    """
    return _decode_request(data)


def decode_answer(data: bytes) -> Answer:
    """An answer from its bytes.

    Raises:
        ValueError: It is none.
    """
    return _decode_answer(data)
