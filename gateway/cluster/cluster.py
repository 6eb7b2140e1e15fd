"""The other replicas: what this one has them do and tells them, and what it does for them."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from functools import partial
from inspect import isawaitable
from itertools import count
from typing import Any, TypeAlias, TypeVar, Union

import msgspec
import structlog
from msgspec.structs import replace

from gateway.bus.base import Bus, NoResponders
from gateway.bus.envelope import Control, control_in, encode_control
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.cluster.calls import (
    ANSWER_SECONDS,
    EVERYBODY,
    MOST_NAMED,
    Answer,
    Answers,
    PendingCall,
    Request,
    decode_answer,
    decode_request,
    encode,
    in_parts,
)
from gateway.cluster.command import Command, LongCommand, Subscribers, answer_type
from gateway.errors import BusError

PARTS_OF_AN_ENVELOPE = 2
"""Of what the bus carries, this share is a part of an answer; the rest is room for what is around it."""

PROBE_SECONDS = 2.0
"""After so long without an answer the bus is asked whether the other replica still listens."""

SILENCE_SECONDS = 0.1
"""After so long without a word of who is there all are asked, to know who it may be that is silent."""

MOST_BY_TOPIC = 32
"""Questions asked at a time, each at another subject: who asks makes all of them in one turn of its loop."""

TOLD = frozenset({Control.TRACKER, Control.REVOCATION})
"""What replicas tell each other without expecting an answer."""

_log = structlog.get_logger(__name__)

A = TypeVar("A")
C = TypeVar("C", bound=Command[Any])

Others: TypeAlias = tuple[Iterable[str], Iterable[str]]
"""Replicas that have an answer to a command too, and those of which nobody here can say whether they have."""

_Handler: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Others]]


class Cluster:
    """This replica's place among the others.

    Args:
        commands: All there are; each is to get its :meth:`handle`.
        peers: Ids of the other replicas that are alive, now and later.
        undecodable: Called for each message that this release cannot read.
        quiet: Those of the peers that may be cut off at the moment, now and later.
    """

    def __init__(
        self,
        replica: str,
        bus: Bus,
        subjects: Subjects,
        commands: Collection[type[Command[Any]]],
        *,
        peers: Iterable[str],
        undecodable: Callable[[], None],
        quiet: Iterable[str] = (),
    ) -> None:
        self.replica = replica
        self._bus = bus
        self._subjects = subjects
        self._peers = peers
        self._quiet = quiet
        self._undecodable = undecodable
        long = [each for each in commands if issubclass(each, LongCommand)]
        short = [each for each in commands if not issubclass(each, LongCommand)]
        self._decoders = {
            kind: msgspec.msgpack.Decoder(Union[tuple(types)])  # noqa: UP007 -- of a list
            for kind, types in ((Control.REQUEST, short), (Control.LONG_REQUEST, long))
            if types
        }
        self._answer_decoders = {
            each: msgspec.msgpack.Decoder(answer_type(each)) for each in commands
        }
        self._handlers: dict[type[Command[Any]], _Handler] = {}
        self._listeners: dict[Control, Callable[[bytes], None]] = {}
        self._calls: dict[int, PendingCall] = {}
        self._numbers = count()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def others(self) -> set[str]:
        """Ids of the other replicas that are alive."""
        return set(self._peers)

    @property
    def everyone(self) -> set[str]:
        """Ids of all replicas that are alive, this one's among them."""
        return {self.replica, *self._peers}

    @property
    def part_bytes(self) -> int:
        """How long a command should be, at most; a single message that is let in fits in any case."""
        return self._bus.max_envelope_bytes // PARTS_OF_AN_ENVELOPE

    def handle(
        self,
        command: type[C],
        function: Callable[[C], Any],
        *,
        others: Callable[[C], Others] = lambda _: ((), ()),
    ) -> None:
        """Carry out a command for other replicas, and for this one.

        Args:
            function: Returns the answer, or an awaitable of it.
            others: For who asks those subscribed to a topic: the others, as far as this one knows.

        Raises:
            LookupError: There is no such command.
        """
        if command not in self._answer_decoders:
            raise LookupError(f"{command.__name__} is none of the commands")
        self._handlers[command] = function, others

    def listen(self, kind: Control, listener: Callable[[bytes], None]) -> None:
        """Pass on what replicas tell each other, one of :data:`TOLD`.

        Args:
            listener: Raises ``ValueError`` for what it cannot read.
        """
        self._listeners[kind] = listener

    def check(self) -> None:
        """Make sure that nothing another replica may send goes unanswered or unread.

        Raises:
            LookupError: Something has no handler or listener.
        """
        lacking = self._answer_decoders.keys() - self._handlers.keys()
        names = [each.__name__ for each in lacking] + [
            kind.name for kind in TOLD - self._listeners.keys()
        ]
        if names:
            raise LookupError(f"nobody handles {', '.join(sorted(names))}")

    async def join(self) -> None:
        """Listen to what is said to this replica and to all. To be called once.

        Raises:
            BusError: The bus is down, or denies it.
        """
        own = await self._bus.subscribe(self._subjects.replica(self.replica), self._heard)
        try:
            await self._bus.subscribe(self._subjects.replicas, self._heard)
        except BaseException:
            own.close()
            raise

    def to_topic(self, topic: str, message: bytes) -> None:
        """A tracker's message to all replicas subscribed to a topic.

        Raises:
            BusError: Nobody gets it.
        """
        self._send(self._subjects.topic(topic), Control.TRACKER, message)

    def to_replica(self, replica: str, message: bytes) -> None:
        """A tracker's message to one replica.

        Raises:
            BusError: It does not get it.
        """
        self._send(self._subjects.replica(replica), Control.TRACKER, message)

    def to_all(self, message: bytes) -> None:
        """A tracker's message to all replicas.

        Raises:
            BusError: Nobody gets it.
        """
        self._send(self._subjects.replicas, Control.TRACKER, message)

    def revoke(self, message: bytes) -> None:
        """Revocations to all replicas, this one included.

        Raises:
            BusError: Nobody gets it.
        """
        self._send(self._subjects.replicas, Control.REVOCATION, message)

    async def call(
        self,
        command: Command[A],
        to: AbstractSet[str] | Subscribers,
        *,
        seconds: float = ANSWER_SECONDS,
    ) -> Answers[A]:
        """Have a command carried out by replicas, and by those they name.

        Args:
            to: Their ids; with this one's id among them, it is the first to carry it out. So it is if an
                answer shall be whole.
            seconds: How long to wait for answers, at most.

        Returns:
            What was answered in time. It is complete without the answer of a replica only if that replica is
            not there, which is found out for a :class:`LongCommand`; whether one that is missing has carried
            out the command, or will, nobody knows.
        """
        here: dict[str, A] = {}
        whole = isinstance(to, Subscribers) and to.whole
        if whole or (not isinstance(to, Subscribers) and self.replica in to):
            function, _ = self._handlers[type(command)]
            answer = function(command)
            here[self.replica] = await answer if isawaitable(answer) else answer
        if isinstance(to, Subscribers):
            subject, named = self._subjects.topic(to.topic), frozenset(self._quiet if whole else ())
        else:
            subject, named = "", frozenset(to - {self.replica})
        number = next(self._numbers)
        request = encode(Request(self.replica, number, encode(command)))
        call = self._calls[number] = PendingCall(
            named, open_ended=bool(subject), ask=partial(self._ask_too, request) if whole else None
        )
        try:
            async with asyncio.timeout(seconds):
                await self._ask(call, command, subject, request)
        except (BusError, TimeoutError):
            pass  # whoever has not answered is missing
        finally:
            call.close()
            del self._calls[number]
        answers = call.answers(self._peers).decoded(self._answer_decoders[type(command)].decode)
        answers.by_replica.update(here)
        return answers

    def holders(self, topic: str) -> AbstractSet[str] | Subscribers:
        """Whom to ask about something that only replicas subscribed to a topic know of."""
        return Subscribers(topic, whole=True) if self.by_topic(1) else self.everyone

    def by_topic(self, questions: int) -> bool:
        """Whether so many questions, each about another topic, are cheaper than one to everyone."""
        return questions <= MOST_BY_TOPIC and questions < len(self.others)

    def nobody(self, subscribers: Subscribers) -> bool:
        """Whether certainly no replica is among them; False where that is not known without asking."""
        return self._bus.deserted(self._subjects.topic(subscribers.topic))

    async def _ask(
        self,
        call: PendingCall,
        command: Command[Any],
        subject: str,
        request: bytes,
    ) -> None:
        """Send a request to all that a call waits for, and to a subject if there is one; wait for answers."""
        if subject:
            self._send(subject, Control.REQUEST, request, call.no_responders())
        if isinstance(command, LongCommand):
            self._send_each(call, Control.LONG_REQUEST, request)
        else:
            for replica in call.waits_for():
                self._send(self._subjects.replica(replica), Control.REQUEST, request)
        if subject and not await call.wait(SILENCE_SECONDS):
            call.silence(self._peers)
        while not await call.wait(PROBE_SECONDS):
            self._send_each(call, Control.PROBE, b"")

    def _ask_too(self, request: bytes, replica: str) -> None:
        with contextlib.suppress(BusError):  # it is missing, then
            self._send(self._subjects.replica(replica), Control.REQUEST, request)

    def _send_each(self, call: PendingCall, kind: Control, message: bytes) -> None:
        """Send to all replicas a call waits for; the call learns who is not there."""
        for replica in call.waits_for():
            subject = self._subjects.replica(replica)
            self._send(subject, kind, message, call.no_responders(replica))

    def _send(
        self,
        subject: str,
        kind: Control,
        message: bytes,
        no_responders: NoResponders | None = None,
    ) -> None:
        self._bus.publish(subject, encode_control(kind, message), no_responders=no_responders)

    def _heard(self, data: bytes, _position: StreamPosition | None) -> None:
        control = control_in(data)
        if control is None:
            self._undecodable()
        else:
            self._receive(*control, by_topic=False)

    def receive(self, kind: Control, message: bytes) -> None:
        """A message of another replica, or of this one, to those subscribed to a topic."""
        self._receive(kind, message, by_topic=True)

    def _receive(self, kind: Control, message: bytes, *, by_topic: bool) -> None:
        try:
            if kind in self._decoders:
                self._asked(decode_request(message), self._decoders[kind].decode, by_topic)
            elif kind is Control.ANSWER:
                answer = decode_answer(message)
                if answer.doubted == EVERYBODY:
                    answer = replace(answer, doubted=tuple(self._peers))
                if answer.number in self._calls:
                    self._calls[answer.number].answered(answer)
            elif kind in self._listeners:
                self._listeners[kind](message)
            elif kind is not Control.PROBE:  # that one was heard is the answer
                self._undecodable()
        except (ValueError, RecursionError):
            self._undecodable()

    def _asked(
        self, request: Request, decode: Callable[[bytes], Command[Any]], by_topic: bool
    ) -> None:
        command = decode(request.body)
        function, others = self._handlers[type(command)]
        if request.asker == self.replica:
            call = self._calls.get(request.number)
            if by_topic and call is not None:
                call.echoed(*others(command))
            return
        answer = Answer(self.replica, request.number, (), b"", doubted=None)
        if by_topic:
            named, doubted = (tuple({*each} - {request.asker}) for each in others(command))
            if len(named) + len(doubted) > MOST_NAMED:
                named, doubted = (), EVERYBODY
            answer = replace(answer, named=named, doubted=doubted)
        task = asyncio.create_task(self._answer(request.asker, answer, function(command)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, asker: str, answer: Answer, result: object) -> None:
        try:
            body = encode(await result if isawaitable(result) else result)
            for part in in_parts(replace(answer, body=body), self.part_bytes):
                self._send(self._subjects.replica(asker), Control.ANSWER, encode(part))
        except BusError as problem:
            _log.warning("answer not sent", asker=asker, problem=type(problem).__name__)
        except Exception:  # noqa: BLE001 -- top of this task: who asked is told of nothing, and says so
            _log.exception("command failed", asker=asker)
