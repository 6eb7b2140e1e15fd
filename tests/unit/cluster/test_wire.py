"""What calls look like on the bus, byte for byte: neighbouring releases have to understand each other."""

import asyncio
from typing import Any

import pytest

from gateway.auth.revocations import Revocation
from gateway.bus.envelope import Control
from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.cluster import Answers, Cluster, Command, Cover, LongCommand, Subscribers
from gateway.cluster.cluster import PROBE_SECONDS
from gateway.device import Device
from gateway.metrics import Metrics
from gateway.sessions.commands import (
    ALL,
    CloseSessions,
    Count,
    Displace,
    Inherit,
    Leave,
    List,
    ListRevoked,
    Missed,
    Presence,
    Return,
    Revoke,
    Session,
    Standing,
    Vouchers,
)
from gateway.transport.longpoll.batch import BatchMessage
from gateway.transport.longpoll.sessions import Poll, Polled, Push
from tests.support.clock import Clock

PHONE = Device("d", "n", "phone")
SESSION = Session("id", "42", PHONE, "b", "websocket", "2.0.0", "ip", "ua", 1.5, 2.5, ("room:1",))
LISTED = (
    b"\x91\x9b\xa2id\xa242\x83\xa2id\xa1d\xa4name\xa1n\xa4type\xa5phone\xa1b\xa9websocket\xa52.0.0"
    b"\xa2ip\xa2ua\xcb?\xf8\x00\x00\x00\x00\x00\x00\xcb@\x04\x00\x00\x00\x00\x00\x00\x91\xa6room:1"
)
REVOKED = Revocation("jti", "j", 1000.5)

CALLS: list[tuple[Command[Any], bytes, Any, bytes]] = [
    (
        Count(("42", "43")),
        b"\x92\x01\x92\xa242\xa243",
        {"42": Presence(2, True, 1.5)},
        b"\x81\xa242\x93\x02\xc3\xcb?\xf8\x00\x00\x00\x00\x00\x00",
    ),
    (
        List("42"),
        b"\x92\x02\xa242",
        [SESSION],
        LISTED,
    ),
    (CloseSessions("42", ("s",), ("t",)), b"\x94\x03\xa242\x91\xa1s\x91\xa1t", 3, b"\x03"),
    (CloseSessions("42"), b"\x94\x03\xa242\x90\x90", 300, b"\xcd\x01,"),
    (Leave("42", "room:1"), b"\x93\x04\xa242\xa6room:1", 1, b"\x01"),
    (Displace("42", "d"), b"\x93\x0b\xa242\xa1d", True, b"\xc3"),
    (
        Vouchers(("42",)),
        b"\x92\x05\x91\xa242",
        Standing(("42",), ("43",)),
        b"\x92\x91\xa242\x91\xa243",
    ),
    (Inherit(("42",)), b"\x92\x06\x91\xa242", True, b"\xc3"),
    (Missed("c", 2**60), b"\x93\x07\xa1c\xcf\x10\0\0\0\0\0\0\0", False, b"\xc2"),
    (Return(), b"\x91\x08", True, b"\xc3"),
    (Revoke(REVOKED), b"\x92\x09\x93\xa3jti\xa1j\xcb@\x8fD\0\0\0\0\0", 2, b"\x02"),
    (ListRevoked(), b"\x91\x0a", (REVOKED,), b"\x91\x93\xa3jti\xa1j\xcb@\x8fD\0\0\0\0\0"),
    (
        Poll("secret", 7),
        b"\x93\xa4Poll\xa6secret\x07",
        Polled(200, 8, b"[1],"),
        b"\x93\xcc\xc8\x08\xc4\x04[1],",
    ),
    (
        Push("secret", [BatchMessage(b"x")], 9.5),
        b"\x94\xa4Push\xa6secret\x91\x92\xc4\x01x\xc2\xcb@#\0\0\0\0\0\0",
        Polled(410),
        b"\x93\xcd\x01\x9a\x00\xc4\x00",
    ),
]

EVERY = (*ALL, Poll, Push)

Listening = tuple[MemoryBus, Cluster]


@pytest.fixture
async def listening() -> Listening:
    """A bus, and replica "a" on it."""
    bus = MemoryBus(metrics=Metrics())
    cluster = Cluster("a", bus, Subjects("g"), EVERY, peers=(), undecodable=lambda: None)
    await bus.start()
    await cluster.join()
    return bus, cluster


async def sent_to(bus: MemoryBus, subject: str) -> list[bytes]:
    """A list of all that is sent to a subject from now on."""
    sent: list[bytes] = []
    await bus.subscribe(subject, lambda data, _: sent.append(data))
    return sent


def kind_of(command: Command[Any]) -> bytes:
    """What tells a receiver how to read it."""
    return b"\x08" if isinstance(command, LongCommand) else b"\x04"


def test_every_command_is_among_these() -> None:
    assert {type(command) for command, *_ in CALLS} == set(EVERY)


@pytest.mark.parametrize(("command", "body", "answer", "answered"), CALLS)
async def test_what_a_caller_sends_and_understands(
    listening: Listening, command: Command[Any], body: bytes, answer: object, answered: bytes
) -> None:
    bus, cluster = listening
    clock = Clock()
    sent = await sent_to(bus, "g.replica.b")
    call = asyncio.ensure_future(cluster.call(command, {"b"}))
    await clock.run()
    assert sent == [b"\x01%b\x93\xa1a\x00\xc4%c%b" % (kind_of(command), len(body), body)]

    reply = b"\x01\x05\x97\xa1b\x00\x90\xc4%c%b\x00\xc2\xc0" % (len(answered), answered)
    bus.publish("g.replica.a", reply)
    await clock.run()
    assert call.result() == Answers({"b": answer}, Cover())


@pytest.mark.parametrize("by_topic", [False, True])
@pytest.mark.parametrize("call", CALLS)
async def test_what_a_callee_understands_and_sends(
    listening: Listening, call: tuple[Command[Any], bytes, Any, bytes], by_topic: bool
) -> None:
    """Who is asked by the subject of a topic says who else may have an answer."""
    bus, cluster = listening
    command, body, answer, answered = call
    clock = Clock()
    asked: list[object] = []

    def function(command: object) -> object:
        asked.append(command)
        return answer

    cluster.handle(type(command), function, others=lambda _: (("b", "c"), ("b", "d")))
    sent = await sent_to(bus, "g.replica.b")
    request = b"\x93\xa1b\x09\xc4%c%b" % (len(body), body)
    kind = kind_of(command)
    if by_topic:
        cluster.receive(Control(kind[0]), request)
    else:
        bus.publish("g.replica.a", b"\x01%b%b" % (kind, request))
    await clock.run()

    assert asked == [command]
    named, doubted = (b"\x91\xa1c", b"\x91\xa1d") if by_topic else (b"\x90", b"\xc0")
    assert sent == [
        b"\x01\x05\x97\xa1a\x09%b\xc4%c%b\x00\xc2%b" % (named, len(answered), answered, doubted)
    ]


async def test_those_subscribed_to_a_topic_are_called_on_its_subject(listening: Listening) -> None:
    bus, cluster = listening
    clock = Clock()
    sent = await sent_to(bus, "g.topic.user.42")
    call = asyncio.ensure_future(cluster.call(Return(), Subscribers("user:42")))
    await clock.run()
    assert sent == [b"\x01\x04\x93\xa1a\x00\xc4\x02\x91\x08"]
    call.cancel()


async def test_who_takes_long_is_probed(listening: Listening) -> None:
    bus, cluster = listening
    clock = Clock()
    sent = await sent_to(bus, "g.replica.b")
    call = asyncio.ensure_future(cluster.call(Poll("s", 0), {"b"}, seconds=10))
    await clock.run()
    await clock.run(PROBE_SECONDS)
    assert sent[1:] == [b"\x01\x09"]
    call.cancel()


async def test_what_replicas_tell_each_other(listening: Listening) -> None:
    bus, cluster = listening
    clock = Clock()
    told: list[bytes] = []
    cluster.listen(Control.TRACKER, lambda data: told.append(b"tracker " + data))
    cluster.listen(Control.REVOCATION, lambda data: told.append(b"revocation " + data))
    subjects = ("g.topic.room.1", "g.replica.b", "g.replicas")
    sent = [await sent_to(bus, subject) for subject in subjects]
    cluster.to_topic("room:1", b"x")
    cluster.to_replica("b", b"x")
    cluster.to_all(b"x")
    cluster.revoke(b"y")
    await clock.run()

    assert sent == [[b"\x01\x03x"], [b"\x01\x03x"], [b"\x01\x03x", b"\x01\x06y"]]
    assert told == [b"tracker x", b"revocation y"]
