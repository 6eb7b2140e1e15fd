"""The ways from this replica to the others: to one, to all, and to those that hold a topic."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from itertools import count
from typing import Any, Protocol

import structlog

from gateway.bus.base import Bus, Unheard
from gateway.bus.envelope import Control, control_in, encode_control
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.cluster.questions import (
    Answer,
    Answers,
    Question,
    Request,
    decode_answer,
    decode_request,
    encode,
    in_parts,
)
from gateway.errors import BusError, OutcomeUnknown

PARTS_OF_AN_ENVELOPE = 2
"""Of what the bus carries, this share is a part of an answer; the rest is room for what is around it."""

PROBE_SECONDS = 2.0
"""After so long without an answer the bus is asked whether the other replica still listens."""

_log = structlog.get_logger(__name__)

Respond = Callable[[bytes], tuple[bytes, Iterable[str]] | None]
"""Given a question, the answer and who else has one; None when this replica has nothing to say."""


RunErrand = Callable[[bytes], Awaitable[bytes]]
"""Does what another replica wants done here; returns what came of it."""


class Topics(Protocol):
    """The subjects of topics, which others use too."""

    on_control: Callable[[Control, bytes], None]

    def publish_control(
        self, topic: str, kind: Control, message: bytes, *, unheard: Unheard | None = None
    ) -> None:
        """Send a message to all replicas that are subscribed to a topic."""


class Cluster:
    """This replica's links.

    Args:
        live: Ids of the other replicas that are alive.
        undecodable: Called for each message that this release cannot read.

    Attributes:
        on_tracker: Told what the trackers of others say.
        on_revocations: Told what others, or this one, revoked.
        respond: Answers the questions of others.
        run_errand: Does what they want done.
    """

    def __init__(
        self,
        replica: str,
        bus: Bus,
        subjects: Subjects,
        topics: Topics,
        *,
        live: Callable[[], Iterable[str]],
        undecodable: Callable[[], None],
    ) -> None:
        self.replica = replica
        self.on_tracker: Callable[[bytes], None] = lambda _: None
        self.on_revocations: Callable[[bytes], None] = lambda _: None
        self.respond: Respond = lambda _: None
        self.run_errand: RunErrand | None = None
        self._bus = bus
        self._subjects = subjects
        self._topics = topics
        self._live = live
        self._undecodable = undecodable
        self._questions: dict[int, Question] = {}
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()
        topics.on_control = self._received

    @property
    def errand_bytes(self) -> int:
        """How long an errand should be, at most; a single message that is let in fits in any case."""
        return self._bus.max_envelope_bytes // PARTS_OF_AN_ENVELOPE

    async def join(self) -> None:
        """Listen to what is said to this replica and to all. To be called once.

        Raises:
            BusError: The bus is down, or denies it.
        """
        own = await self._bus.subscribe(self._subjects.replica(self.replica), self._direct)
        try:
            await self._bus.subscribe(self._subjects.replicas, self._direct)
        except BaseException:
            own.close()
            raise

    async def to_topic(self, topic: str, message: bytes) -> None:
        """A tracker's message to all replicas subscribed to a topic.

        Raises:
            BusError: Nobody gets it.
        """
        self._topics.publish_control(topic, Control.TRACKER, message)

    async def to_replica(self, replica: str, message: bytes) -> None:
        """A tracker's message to one replica.

        Raises:
            BusError: It does not get it.
        """
        await self._send(replica, Control.TRACKER, message)

    async def to_all(self, message: bytes) -> None:
        """A tracker's message to all replicas.

        Raises:
            BusError: Nobody gets it.
        """
        data = encode_control(Control.TRACKER, message)
        self._bus.publish(self._subjects.replicas, data)

    async def revoke(self, message: bytes) -> None:
        """Revocations to all replicas, this one included.

        Raises:
            BusError: Nobody gets it.
        """
        data = encode_control(Control.REVOCATION, message)
        self._bus.publish(self._subjects.replicas, data)

    async def ask_holders(self, topic: str, body: bytes) -> Answers:
        """Ask whoever is subscribed to a topic; at once when nobody is.

        This replica must not be subscribed: nobody else could then be told from nobody who answers.
        """
        number, question = self._open((), open_ended=True)
        try:
            self._topics.publish_control(
                topic,
                Control.REQUEST,
                encode(Request(self.replica, number, body)),
                unheard=question.unheard,
            )
            return await question.wait(self._live())
        except BusError:
            return question.give_up(self._live())
        finally:
            del self._questions[number]

    async def ask_each(self, replicas: Iterable[str], body: bytes) -> Answers:
        """Ask these replicas, and those they name."""
        named = list(replicas)
        number, question = self._open(named, open_ended=False)
        request = encode(Request(self.replica, number, body))
        try:
            for replica in named:
                await self._send(replica, Control.REQUEST, request)
            return await question.wait(named)
        except BusError:
            return question.give_up(named)
        finally:
            del self._questions[number]

    async def errand(self, replica: str, body: bytes, seconds: float) -> bytes | None:
        """Have one replica do something, and wait until it is done.

        Args:
            seconds: For how long, at most.

        Returns:
            What came of it; None when there is no such replica, or none any more.

        Raises:
            OutcomeUnknown: It may have been done, and may still be.
            BusError: It certainly was not.
        """
        number, question = self._open((replica,), open_ended=False)
        message = encode_control(Control.ERRAND, encode(Request(self.replica, number, body)))
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self._bus.publish(
                        self._subjects.replica(replica), message, unheard=question.unheard
                    )
                    answers = await question.wait((replica,), PROBE_SECONDS)
                    if answers.complete:
                        return answers.bodies.get(replica)
                    message = encode_control(Control.PROBE, b"")
        except TimeoutError:
            raise OutcomeUnknown("no answer from the other replica") from None
        finally:
            del self._questions[number]

    def _open(self, named: Iterable[str], *, open_ended: bool) -> tuple[int, Question]:
        number = next(self._numbers)
        question = self._questions[number] = Question(named, open_ended=open_ended)
        return number, question

    async def _send(self, replica: str, kind: Control, message: bytes) -> None:
        self._bus.publish(self._subjects.replica(replica), encode_control(kind, message))

    def _direct(self, data: bytes, _position: StreamPosition | None) -> None:
        control = control_in(data)
        if control is None:
            self._undecodable()
        else:
            self._received(*control)

    def _received(self, kind: Control, message: bytes) -> None:
        try:
            if kind is Control.TRACKER:
                self.on_tracker(message)
            elif kind is Control.REVOCATION:
                self.on_revocations(message)
            elif kind is Control.REQUEST:
                self._asked(decode_request(message))
            elif kind is Control.ERRAND:
                self._start(self._run(decode_request(message)))
            elif kind is Control.PROBE:
                pass  # that it was heard is the answer
            else:
                self._answered(decode_answer(message))
        except (ValueError, RecursionError):
            self._undecodable()

    def _asked(self, request: Request) -> None:
        if request.asker == self.replica:
            return
        response = self.respond(request.body)
        if response is None:
            return
        body, named = response
        others = tuple(replica for replica in named if replica != request.asker)
        answer = Answer(self.replica, request.number, others, body)
        self._start(self._answer(request.asker, answer))

    async def _run(self, errand: Request) -> None:
        if self.run_errand is None:
            return
        try:
            body = await self.run_errand(errand.body)
        except (ValueError, RecursionError):
            self._undecodable()
            return
        await self._answer(errand.asker, Answer(self.replica, errand.number, (), body))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, asker: str, answer: Answer) -> None:
        try:
            for part in in_parts(answer, self.errand_bytes):
                await self._send(asker, Control.ANSWER, encode(part))
        except BusError as problem:
            _log.warning("answer not sent", asker=asker, problem=type(problem).__name__)

    def _answered(self, answer: Answer) -> None:
        question = self._questions.get(answer.number)
        if question is not None:
            question.answered(answer)
