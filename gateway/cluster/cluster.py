"""The other replicas: what this one has them do and tells them, and what it does for them."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from collections.abc import Set as AbstractSet
from inspect import isawaitable
from itertools import count
from typing import Any, TypeAlias, TypeVar, Union

import msgspec
import structlog

from gateway.bus.base import Bus, NoResponders
from gateway.bus.envelope import Control, control_in, encode_control
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.cluster.calls import (
    ANSWER_SECONDS,
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

TOLD = frozenset({Control.TRACKER, Control.REVOCATION})
"""What replicas tell each other without expecting an answer."""

_log = structlog.get_logger(__name__)

A = TypeVar("A")
C = TypeVar("C", bound=Command[Any])

_Handler: TypeAlias = tuple[Callable[[Any], Any], Callable[[Any], Iterable[str]]]


class Cluster:
    """This replica's place among the others.

    Args:
        commands: All there are; each is to get its :meth:`handle`.
        peers: Ids of the other replicas that are alive, now and later.
        undecodable: Called for each message that this release cannot read.
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
    ) -> None:
        self.replica = replica
        self._bus = bus
        self._subjects = subjects
        self._peers = peers
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
        others: Callable[[C], Iterable[str]] = lambda _: (),
    ) -> None:
        """Carry out a command for other replicas, and for this one.

        Args:
            function: Returns the answer, or an awaitable of it.
            others: Names replicas that have an answer too, as far as this one knows.

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
        own = await self._bus.subscribe(self._subjects.replica(self.replica), self._direct)
        try:
            await self._bus.subscribe(self._subjects.replicas, self._direct)
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
            to: Their ids; with this one's id among them, it is the first to carry it out.
            seconds: How long to wait for answers, at most.

        Returns:
            What was answered in time. It is complete without the answer of a replica only if that replica is
            not there, which is found out for a :class:`LongCommand`; whether one that is missing has carried
            out the command, or will, nobody knows.
        """
        here: dict[str, A] = {}
        if not isinstance(to, Subscribers) and self.replica in to:
            function, _ = self._handlers[type(command)]
            answer = function(command)
            here[self.replica] = await answer if isawaitable(answer) else answer
            to = to - {self.replica}
        number = next(self._numbers)
        call = self._calls[number] = PendingCall(
            () if isinstance(to, Subscribers) else to, open_ended=isinstance(to, Subscribers)
        )
        request = encode(Request(self.replica, number, encode(command)))
        try:
            async with asyncio.timeout(seconds):
                await self._ask(call, command, to, request)
        except (BusError, TimeoutError):
            pass  # whoever has not answered is missing
        finally:
            call.close()
            del self._calls[number]
        answers = call.answers(self._peers).decoded(self._answer_decoders[type(command)].decode)
        answers.by_replica.update(here)
        return answers

    def nobody(self, subscribers: Subscribers) -> bool:
        """Whether certainly no replica is among them; False where that is not known without asking."""
        return self._bus.deserted(self._subjects.topic(subscribers.topic))

    async def _ask(
        self,
        call: PendingCall,
        command: Command[Any],
        to: AbstractSet[str] | Subscribers,
        request: bytes,
    ) -> None:
        if isinstance(to, Subscribers):
            subject = self._subjects.topic(to.topic)
            self._send(subject, Control.REQUEST, request, call.no_responders())
        elif isinstance(command, LongCommand):
            self._send_each(call, Control.LONG_REQUEST, request)
        else:
            for replica in sorted(to):
                self._send(self._subjects.replica(replica), Control.REQUEST, request)
        while not await call.wait(PROBE_SECONDS):
            self._send_each(call, Control.PROBE, b"")

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

    def _direct(self, data: bytes, _position: StreamPosition | None) -> None:
        control = control_in(data)
        if control is None:
            self._undecodable()
        else:
            self.receive(*control)

    def receive(self, kind: Control, message: bytes) -> None:
        """A message of another replica, or of this one, from whatever subject."""
        try:
            if kind in self._decoders:
                self._asked(decode_request(message), self._decoders[kind].decode)
            elif kind is Control.ANSWER:
                answer = decode_answer(message)
                if answer.number in self._calls:
                    self._calls[answer.number].answered(answer)
            elif kind in self._listeners:
                self._listeners[kind](message)
            elif kind is not Control.PROBE:  # that one was heard is the answer
                self._undecodable()
        except (ValueError, RecursionError):
            self._undecodable()

    def _asked(self, request: Request, decode: Callable[[bytes], Command[Any]]) -> None:
        if request.asker == self.replica:
            return
        command = decode(request.body)
        function, named = self._handlers[type(command)]
        answer = function(command)
        others = tuple(replica for replica in named(command) if replica != request.asker)
        task = asyncio.create_task(self._answer(request, answer, others))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request, answer: object, others: tuple[str, ...]) -> None:
        try:
            body = encode(await answer if isawaitable(answer) else answer)
            for part in in_parts(
                Answer(self.replica, request.number, others, body), self.part_bytes
            ):
                subject = self._subjects.replica(request.asker)
                self._send(subject, Control.ANSWER, encode(part))
        except BusError as problem:
            _log.warning("answer not sent", asker=request.asker, problem=type(problem).__name__)
        except Exception:  # noqa: BLE001 -- top of this task: who asked is told of nothing, and says so
            _log.exception("command failed", asker=request.asker)
