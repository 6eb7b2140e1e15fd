"""Calls between two replicas: carried out, declined, lost; and the table of what each carries out."""

import asyncio
import weakref
from typing import Any

import pytest

from gateway.bus.base import NoResponders
from gateway.bus.envelope import Control, control_in, encode_control
from gateway.bus.memory import MemoryBus
from gateway.bus.no_responders import NoRespondersInbox
from gateway.bus.subjects import Subjects
from gateway.cluster import Answers, Cluster, Command, Cover, LongCommand, Subscribers
from gateway.cluster.calls import MOST_NAMED, PendingCall, Request, encode
from gateway.cluster.cluster import TOLD
from gateway.metrics import Metrics

SUBJECTS = Subjects("test")
SECONDS = 30.0
UNKNOWN = Cover(("b",), complete=False)


class Double(Command[int], frozen=True, tag=1):
    """Answered at once."""

    number: int


class Fetch(LongCommand[bytes], frozen=True, tag=True):
    """Answered when it is done."""

    size: int


class Replicas:
    """Two on one bus, ``a`` and ``b``, which carry out the same."""

    def __init__(self, bus: MemoryBus) -> None:
        self.bus = bus
        self.undecodable: list[None] = []
        self.done: list[str] = []
        self.a, self.b = self.made("a"), self.made("b")

    async def start(self) -> None:
        """Have them listen."""
        await self.bus.start()
        for cluster in (self.a, self.b):
            await cluster.join()

    def made(self, replica: str) -> Cluster:
        """One, not joined yet."""
        cluster = Cluster(
            replica,
            self.bus,
            SUBJECTS,
            (Double, Fetch),
            peers={"a", "b"} - {replica},
            undecodable=lambda: self.undecodable.append(None),
        )

        def double(command: Double) -> int:
            self.done.append(replica)
            return command.number * 2

        async def fetch(command: Fetch) -> bytes:
            return b"x" * command.size

        cluster.handle(Double, double)
        cluster.handle(Fetch, fetch)
        return cluster


@pytest.fixture
async def replicas() -> Replicas:
    """Two that listen."""
    made = Replicas(MemoryBus(metrics=Metrics()))
    await made.start()
    return made


async def test_the_other_carries_it_out_and_answers(replicas: Replicas) -> None:
    assert await replicas.a.call(Double(4), replicas.a.others) == Answers({"b": 8}, Cover())
    assert await replicas.a.call(Fetch(2), {"b"}) == Answers({"b": b"xx"}, Cover())


async def test_who_is_called_with_the_others_carries_it_out_first(replicas: Replicas) -> None:
    everyone = replicas.a.everyone
    answers = await replicas.a.call(Double(4), everyone)

    assert answers == Answers({"a": 8, "b": 8}, Cover())
    assert replicas.done == ["a", "b"]
    assert everyone == {"a", "b"}, "the caller's own"
    assert (await replicas.a.call(Fetch(1), {"a"})).values == [b"x"]


async def test_an_answer_may_be_longer_than_the_bus_carries(replicas: Replicas) -> None:
    size = 3 * replicas.bus.max_envelope_bytes
    assert (await replicas.a.call(Fetch(size), {"b"}, seconds=SECONDS)).values == [b"x" * size]


async def listen(bus: MemoryBus, cluster: Cluster) -> None:
    """Have a replica subscribed to topic ``t``."""

    def heard(data: bytes, _: object) -> None:
        message = control_in(data)
        assert message is not None
        cluster.receive(*message)

    await bus.subscribe(SUBJECTS.topic("t"), heard)


async def test_those_subscribed_to_a_topic_answer_and_name_others(replicas: Replicas) -> None:
    replicas.b.handle(Double, lambda _: 1, others=lambda _: (("a", "c"), ("d",)))
    await listen(replicas.bus, replicas.b)
    answers = await replicas.a.call(Double(4), Subscribers("t"))

    assert answers == Answers({"b": 1}, Cover(("c",), complete=False))


async def test_where_very_many_would_be_named_everybody_is(replicas: Replicas) -> None:
    """So an answer stays short. It is as if the other were of a release that names nobody."""
    many = [f"r{number}" for number in range(MOST_NAMED + 1)]
    none: list[str] = []
    replicas.a._peers = ("b", "c")
    await listen(replicas.bus, replicas.b)
    known = iter([(many, none), (none, many), (many, many)])
    replicas.b.handle(Double, lambda _: 1, others=lambda _: next(known))
    for _ in range(3):
        answers = await replicas.a.call(Double(4), Subscribers("t", whole=True), seconds=0.05)
        assert answers == Answers({"a": 8, "b": 1}, Cover(("c",), complete=False))


async def test_a_topic_nobody_is_subscribed_to_has_no_answers(replicas: Replicas) -> None:
    assert await replicas.a.call(Double(4), Subscribers("t"), seconds=SECONDS) == Answers(
        {}, Cover()
    )


async def test_who_is_not_there_is_known_at_once_where_an_answer_takes_long(
    replicas: Replicas,
) -> None:
    assert await replicas.a.call(Fetch(1), {"c"}, seconds=SECONDS) == Answers({}, Cover())
    answers = await replicas.a.call(Double(1), {"b", "c"}, seconds=0.01)
    assert answers == Answers({"b": 2}, Cover(("c",), complete=False))


async def test_silence_leaves_it_open_whether_it_was_done(replicas: Replicas) -> None:
    replicas.b._receive = lambda *_, **__: None  # type: ignore[method-assign]
    assert await replicas.a.call(Fetch(1), {"b"}, seconds=0.01) == Answers({}, UNKNOWN)


class DyingBus:
    """A bus on which the other replica hears one message and is gone."""

    def __init__(self) -> None:
        self.kinds: list[int] = []

    def publish(self, _: str, body: bytes, *, no_responders: NoResponders) -> None:
        self.kinds.append(body[1])
        if len(self.kinds) > 1:
            no_responders.set_result(None)


async def test_who_goes_away_amid_a_call_is_noticed(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command itself is sent once, whatever is sent to find out who is there."""
    monkeypatch.setattr("gateway.cluster.cluster.PROBE_SECONDS", 0.0)
    bus: Any = DyingBus()
    replicas.a._bus = bus

    assert await replicas.a.call(Fetch(1), {"b"}, seconds=SECONDS) == Answers({}, Cover())
    assert bus.kinds == [Control.LONG_REQUEST, Control.PROBE]


class RememberingBus(MemoryBus):
    """A bus whose memory of the messages that want to know of no responders can be looked at."""

    def __init__(self) -> None:
        super().__init__(metrics=Metrics())
        self.inbox = NoRespondersInbox("test")

    def publish(
        self, subject: str, body: bytes, *, no_responders: NoResponders | None = None
    ) -> None:
        super().publish(subject, body, no_responders=no_responders)
        if no_responders is not None:
            self.inbox.expect(no_responders)


async def test_nothing_of_a_call_that_is_over_stays() -> None:
    bus = RememberingBus()
    replicas = Replicas(bus)
    await replicas.start()
    parts = weakref.WeakSet[PendingCall]()
    for command, to in (
        (Fetch(1), {"b"}),
        (Fetch(1), {"c"}),
        (Double(1), {"b"}),
        (Double(1), Subscribers("t")),
    ):
        asked: Command[Any] = command
        task = asyncio.ensure_future(replicas.a.call(asked, to))
        await asyncio.sleep(0)
        parts.update(replicas.a._calls.values())
        assert len(parts) == 1
        await task
        await asyncio.sleep(0)
        assert (len(parts), len(bus.inbox), replicas.a._calls) == (0, 0, {})


@pytest.mark.parametrize("problem", [ValueError, RuntimeError])
async def test_a_bug_is_not_answered_and_harms_no_other_call(
    replicas: Replicas, problem: type[Exception]
) -> None:
    async def fails(_: Fetch) -> bytes:
        raise problem

    replicas.b.handle(Fetch, fails)
    answers = await replicas.a.call(Fetch(1), {"b"}, seconds=0.01)
    assert answers == Answers({}, UNKNOWN)
    assert (await replicas.a.call(Double(1), {"b"})).values == [2]


async def test_without_a_bus_it_is_not_done(replicas: Replicas) -> None:
    await replicas.bus.close()
    for command in (Double(1), Fetch(1)):
        asked: Command[Any] = command
        assert await replicas.a.call(asked, {"b"}, seconds=SECONDS) == Answers({}, UNKNOWN)
    subscribers = await replicas.a.call(Double(1), Subscribers("t"))
    assert subscribers == Answers({}, UNKNOWN), "each that is alive may be one"


@pytest.mark.parametrize(
    "message",
    [
        encode_control(Control.LONG_REQUEST, encode(Request("a", 1, b"")))[:3],
        encode_control(Control.LONG_REQUEST, encode(Request("a", 1, encode(Double(1))))),
        encode_control(Control.REQUEST, encode(Request("a", 1, b"\x91\x63"))),
        encode_control(Control.ANSWER, b"\xc1"),
        encode_control(Control.ERASED, b""),
        b"noise",
    ],
)
async def test_what_cannot_be_read_is_counted_and_not_answered(
    replicas: Replicas, message: bytes
) -> None:
    replicas.bus.publish(SUBJECTS.replica("b"), message)
    assert (await replicas.a.call(Double(1), {"b"})).values == [2]
    assert len(replicas.undecodable) == 1


def test_what_nobody_handles_is_noticed() -> None:
    bus = MemoryBus(metrics=Metrics())
    cluster = Cluster("a", bus, SUBJECTS, (Double,), peers=(), undecodable=lambda: None)
    with pytest.raises(LookupError, match=r"Double, REVOCATION, TRACKER"):
        cluster.check()
    for kind in TOLD:
        cluster.listen(kind, lambda _: None)
    with pytest.raises(LookupError, match=r"Double$"):
        cluster.check()
    cluster.handle(Double, lambda _: 0)
    cluster.check()


def test_what_is_no_command_of_the_wire_cannot_be_handled(replicas: Replicas) -> None:
    class Other(Command[int], frozen=True, tag=2):
        pass

    with pytest.raises(LookupError, match="Other"):
        replicas.a.handle(Other, lambda _: 0)
