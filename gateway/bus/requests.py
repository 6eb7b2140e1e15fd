"""Matches answers to the requests made on one NATS connection (NATS ADR-4: headers and status)."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

import msgspec

from gateway.errors import BusUnavailable, OutcomeUnknown

NO_RESPONDERS: Final = 503
"""Status of the answer to a request that nobody listens to."""

_STATUS: Final = b"NATS/1.0 "


class Reply(msgspec.Struct, frozen=True, gc=False):
    """One answer, or a part of one.

    Attributes:
        status: 0 for a message; else what the server says of the request, such as :data:`NO_RESPONDERS`.
        headers: The block of header lines; empty where there are none.
    """

    status: int
    headers: bytes
    body: bytes


@dataclass(slots=True, eq=False)
class _Request:
    """One request.

    Attributes:
        subject: Named in the server's errors.
        seconds: How long its answer may take, and each part of it.
        deadline: When it counts as not answered.
        parts: What came so far, where the answer may have several parts; else None.
        done: Gets the answer: its parts, of which the last has a status unless it is the only one.
    """

    subject: str
    seconds: float
    deadline: float
    parts: list[Reply] | None
    done: asyncio.Future[list[Reply]]


class Requests:
    """One wildcard subscription for all answers; the last token of their subjects is a number.

    Args:
        prefix: First token of the answers' subjects, so that permissions on ``prefix.>`` are enough.
        clock: Monotonic seconds.

    Attributes:
        subject: What to subscribe to.
        number: The subscription's id on the connection; 0 before it was made.
        refusal: The server's words while it does not have the subscription; else empty.
    """

    closed = False

    def __init__(self, prefix: str, clock: Callable[[], float]) -> None:
        self._start = f"{prefix}.inbox.{secrets.token_hex(8)}."
        self._clock = clock
        self._numbers = count()
        self._open: dict[int, _Request] = {}
        self._looked = clock()
        self._stopped = False
        self.subject = f"{self._start}*"
        self.number = 0
        self.refusal = ""

    def __len__(self) -> int:
        return len(self._open)

    def open(self, subject: str, seconds: float, *, many: bool) -> tuple[int, str]:
        """Expect an answer; returns the request's number and where the answer shall go.

        To be followed by :meth:`wait` or :meth:`close`.

        Args:
            seconds: How long the answer may take; where it may have ``many`` parts, each of them.

        Raises:
            BusUnavailable: The connection is lost.
        """
        if self._stopped:
            raise BusUnavailable("the connection is lost")
        number = next(self._numbers)
        self._open[number] = _Request(
            subject,
            seconds,
            self._clock() + seconds,
            [] if many else None,
            asyncio.get_running_loop().create_future(),
        )
        return number, f"{self._start}{number}"

    async def wait(self, number: int) -> list[Reply]:
        """Wait for the answer.

        Raises:
            BusUnavailable: The server denied the request.
            OutcomeUnknown: It did not come in time, or the connection was lost.
        """
        return await self._open[number].done

    def close(self, number: int) -> None:
        self._open.pop(number, None)

    def receive(self, subject: bytes, headers: bytes, body: bytes) -> None:
        """Something came to one of the answers' subjects."""
        number = subject[len(self._start) :]
        request = self._open.get(int(number)) if number.isdigit() else None
        if request is None or request.done.done():
            return  # who asked did not wait for it
        reply = Reply(_status(headers) if headers else 0, headers, body)
        if request.parts is None:
            request.done.set_result([reply])
            return
        request.parts.append(reply)
        # a long answer is no late one: to ask again would only make it longer
        request.deadline = self._clock() + request.seconds
        if reply.status:
            request.done.set_result(request.parts)

    def refused(self, subject: str, words: str) -> bool:
        """The server denied publishing to a subject, in these words; says whether it was a request."""
        return self._fail(lambda request: request.subject == subject, lambda: BusUnavailable(words))

    def expire(self) -> None:
        """Give up on what was overdue at the last call already; to be called a few times a second.

        Not at once: after this process stalled, answers may be waiting to be read.
        """
        overdue, self._looked = self._looked, self._clock()
        self._fail(
            lambda request: request.deadline <= overdue,
            lambda: OutcomeUnknown("no answer in time"),
        )

    def stop(self) -> None:
        """The connection is lost: nothing more will be answered."""
        self._stopped = True
        self._fail(lambda _: True, lambda: OutcomeUnknown("the connection was lost"))

    def _fail(
        self, concerned: Callable[[_Request], bool], problem: Callable[[], Exception]
    ) -> bool:
        failed = [
            request
            for request in self._open.values()
            if concerned(request) and not request.done.done()
        ]
        for request in failed:
            request.done.set_exception(problem())
        return bool(failed)


def _status(headers: bytes) -> int:
    if not headers.startswith(_STATUS):
        return 0
    code = headers[len(_STATUS) : len(_STATUS) + 3]
    return int(code) if code.isdigit() else 0
