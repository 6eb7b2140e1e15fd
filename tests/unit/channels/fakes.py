"""What stands around a client's connection: a wire that remembers, and parts that wait for the test."""

import asyncio
import json
import struct
from collections import defaultdict
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, TypeAlias

from gateway.auth.admission import Admission
from gateway.auth.claims import Claims
from gateway.bus.base import Handler, NoResponders
from gateway.bus.memory import MemoryBus, MemorySubscription
from gateway.cluster import Answers, Command, Cover, Subscribers
from gateway.errors import UpstreamRefused
from gateway.history.base import Receipt, Tip
from gateway.history.memory import MemoryHistory
from gateway.protocol.messages import encode_json
from gateway.sessions.client import Client
from gateway.upstream.answers import ConnectAnswer, JoinAnswer, PushAnswer, TopicMessage
from gateway.upstream.call import Call

Frame: TypeAlias = list[Any]
"""A V2 message: join_ref, ref, topic, event, payload."""


class Closed(NamedTuple):
    """A close frame."""

    code: int
    reason: str = ""


class Pong(NamedTuple):
    """The answer to a ping."""

    data: bytes


class Binary(NamedTuple):
    """A binary frame."""

    data: bytes


class Gate:
    """Holds up those who come through while it is shut, and may fail them.

    Attributes:
        problem: Raised for everyone who comes through.
        waiting: How many are held up.
    """

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self.problem: Exception | None = None
        self.waiting = 0

    def shut(self) -> None:
        """Hold up whoever comes from now on."""
        self._open.clear()

    def open(self, problem: Exception | None = None) -> None:
        """Let all through, to success or to this problem."""
        self.problem = problem
        self._open.set()

    async def passed(self) -> None:
        """Return when the gate is open."""
        self.waiting += 1
        try:
            await self._open.wait()
        finally:
            self.waiting -= 1
        if self.problem is not None:
            raise self.problem


class Wire:
    """The sending side of a client's connection.

    Attributes:
        written: Every write.
        unsent: Bytes the client has not taken.
        closing: Whether it has ended.
        aborted: Whether it was cut.
    """

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.unsent = 0
        self.closing = False
        self.aborted = False

    def write(self, data: bytes) -> None:
        """Take bytes; none come when it has ended."""
        assert not self.closing, "written to a connection that is gone"
        self.written.append(data)

    clear = False

    def get_write_buffer_size(self) -> int:
        """Bytes the client has not taken."""
        return self.unsent

    def is_closing(self) -> bool:
        """Whether it has ended."""
        return self.closing

    def abort(self) -> None:
        """Cut it."""
        self.aborted = self.closing = True

    def heard(self) -> list[Any]:
        """All that was written, decoded."""
        return list(_decoded(b"".join(self.written)))


def _decoded(data: bytes) -> Any:
    """Frames of a server (RFC 6455, 5.2)."""
    while data:
        opcode, size, start = data[0] & 0x0F, data[1], 2
        if size == 126:
            size, start = struct.unpack_from("!H", data, 2)[0], 4
        elif size == 127:
            size, start = struct.unpack_from("!Q", data, 2)[0], 10
        body, data = data[start : start + size], data[start + size :]
        match opcode:
            case 0x1:
                yield json.loads(body)
            case 0x2:
                yield Binary(body)
            case 0x8:
                yield Closed(struct.unpack_from("!H", body)[0], body[2:].decode())
            case 0xA:
                yield Pong(body)
            case _:
                raise AssertionError(f"opcode {opcode}")


class GatedBus(MemoryBus):
    """A bus that takes its time, or refuses.

    Attributes:
        subscribing: A gate for each subject.
        refuses: What publishing raises; None while messages are taken.
        at_once: Whether it confirms a subscription at once.
    """

    def __init__(self, metrics: Any) -> None:
        super().__init__(metrics=metrics)
        self.subscribing: defaultdict[str, Gate] = defaultdict(Gate)
        self.refuses: Exception | None = None
        self.at_once = False

    async def subscribe(self, subject: str, handler: Handler) -> MemorySubscription:
        await self.subscribing[subject].passed()
        return await super().subscribe(subject, handler)

    def subscribe_now(self, subject: str, handler: Handler) -> MemorySubscription | None:
        return super().subscribe_now(subject, handler) if self.at_once else None

    def publish(
        self, subject: str, body: bytes, *, no_responders: NoResponders | None = None
    ) -> None:
        if self.refuses is not None:
            raise self.refuses
        super().publish(subject, body, no_responders=no_responders)

    def lose(self) -> None:
        """Lose the server; :meth:`start` finds it again."""
        self._open = None
        self.delivery.change(self._listeners, up=False)


class GatedHistory(MemoryHistory):
    """A history that takes its time, or fails.

    Attributes:
        reading: A gate for whoever asks where the history ends.
        storing: A gate for what is to be kept.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.reading = Gate()
        self.storing = Gate()

    async def tip(self) -> Tip:
        await self.reading.passed()
        return await super().tip()

    async def append(self, topic: str, body: bytes, *, id: str | None = None) -> Receipt:  # noqa: A002 -- as there
        await self.storing.passed()
        return await super().append(topic, body, id=id)


class GatedAdmission(Admission):
    """Admission by the real rules and tokens; the look at a newer token takes its time, or fails.

    Attributes:
        looking: The gate of those looks.
    """

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts, anonymous=True, believed_user=False)
        self.looking = Gate()

    async def refresh(self, token: str, known: Claims | None) -> Claims:
        await self.looking.passed()
        return await super().refresh(token, known)


class Asked:
    """A question the backend has not answered.

    Attributes:
        call: The question.
        url: Where it was sent; empty for the usual place.
    """

    def __init__(self, call: Call, url: str) -> None:
        self.call = call
        self.url = url
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def let_in(self, response: Any = None, presence: Any = None, state: Any = None) -> None:
        """Answer yes to a join."""
        self.answer.set_result(
            JoinAnswer(encode_json(response or {}), encode_json(presence or {}), _state(state))
        )

    def take(
        self,
        response: Any = None,
        state: Any = None,
        *broadcast: tuple[str, Any] | tuple[str, Any, str],
    ) -> None:
        """Take a push, and have messages broadcast, with ids or without."""
        messages = tuple(
            TopicMessage(event, encode_json(payload), *ids) for event, payload, *ids in broadcast
        )
        self.answer.set_result(PushAnswer(encode_json(response or {}), _state(state), messages))

    def refuse(self, body: Any) -> None:
        """Answer no, with a status of 4xx."""
        self.answer.set_exception(UpstreamRefused(403, encode_json(body)))

    def fail(self, problem: Exception) -> None:
        """Give no answer."""
        self.answer.set_exception(problem)


def _state(value: Any) -> bytes | None:
    return None if value is None else encode_json(value)


class Backend:
    """A backend that answers when the test says so.

    Attributes:
        asked: All questions, in order.
        open: How many wait for an answer.
        most: The most that ever did at a time.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.open = 0
        self.most = 0

    @property
    def calls(self) -> list[tuple[str | None, str | None]]:
        """Topic and event of each question, in order."""
        return [(asked.call.topic, asked.call.event) for asked in self.asked]

    @property
    def last(self) -> Asked:
        """The latest question."""
        return self.asked[-1]

    async def connect(self, call: Call, url: str = "") -> ConnectAnswer:
        answer: ConnectAnswer = await self._ask(call, url)
        return answer

    async def join(self, call: Call, url: str = "") -> JoinAnswer:
        answer: JoinAnswer = await self._ask(call, url)
        return answer

    async def push(self, call: Call, url: str = "") -> PushAnswer:
        answer: PushAnswer = await self._ask(call, url)
        return answer

    async def _ask(self, call: Call, url: str) -> Any:
        asked = Asked(call, url)
        self.asked.append(asked)
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            return await asked.answer
        finally:
            self.open -= 1


class Alone:
    """The ways to other replicas where there are none."""

    def to_topic(self, topic: str, message: bytes) -> None:
        raise NotImplementedError

    def to_replica(self, replica: str, message: bytes) -> None:
        raise NotImplementedError

    def to_all(self, message: bytes) -> None:
        raise NotImplementedError

    replica = "a"

    async def call(
        self, _command: Command[Any], _to: AbstractSet[str] | Subscribers
    ) -> Answers[Any]:
        return Answers({}, Cover())

    def nobody(self, _: Subscribers) -> bool:
        return True


class Unwatched:
    """Sessions that nobody wants to know of."""

    def started(self, client: Client) -> None: ...
    def ended(self, client: Client, *, moving: bool) -> None: ...
