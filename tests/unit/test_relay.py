"""From the bus to the hub: what is passed on, and what is not."""

import asyncio
import struct
from typing import Any

import pytest
import structlog

from gateway.audience import Audience
from gateway.bus.envelope import Envelope, encode
from gateway.bus.memory import MemoryBus
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.history.memory import MemoryHistory, MemoryStore
from gateway.history.no_history import NoHistory
from gateway.history.resume import Newest
from gateway.hub.broadcast import Broadcast
from gateway.hub.registry import Registry
from gateway.relay import Relay
from gateway.retention import Retention
from tests.support.counted import Counted

TOPIC = "room:1"
NOW = 1000.0


class Recording:
    """The hub, and what the relay and the bus count."""

    def __init__(self) -> None:
        self.sent: list[Broadcast] = []
        self.metrics = Counted()

    def send(self, message: Broadcast, *, paced: bool = False) -> None:
        assert not paced, "nothing is missed here"
        self.sent.append(message)

    @property
    def events(self) -> list[str]:
        return [message.event for message in self.sent]


def made(recording: Recording, bus: MemoryBus, *, keeps: bool) -> Relay:
    """A relay on a memory bus."""
    subjects = Subjects("p")
    retention = Retention(10, 300)
    history = MemoryHistory(bus, subjects, MemoryStore(lambda _: retention, 0, lambda: NOW))
    return Relay(
        bus=bus,
        subjects=subjects,
        registry=Registry(),
        fanout=recording,  # type: ignore[arg-type]  # it has what the relay uses
        metrics=recording.metrics,
        history=history if keeps else NoHistory(),
        policy=lambda _: retention if keeps else None,
        control=lambda *_: None,
        clock=lambda: NOW,
    )


@pytest.fixture
async def parts() -> Any:
    """A relay on a memory bus, its recording, and the bus."""
    recording = Recording()
    bus = MemoryBus(metrics=recording.metrics)
    relay = made(recording, bus, keeps=False)
    await bus.start()
    await relay.subscribe(TOPIC)
    yield relay, recording, bus
    await bus.close()


async def test_a_publish_comes_back_from_the_bus_as_a_broadcast(parts: Any) -> None:
    relay, recording, _ = parts
    audience = Audience(frozenset({"s"}), frozenset({"d"}), frozenset({"phone", "tv"}))
    await relay.publish(TOPIC, "e", b'{ "a":1}', audience=audience)
    await asyncio.sleep(0)

    assert recording.sent == [Broadcast(TOPIC, "e", b'{ "a":1}', audience=audience)]
    assert recording.metrics.value("publish_to_deliver_seconds_count") == 1
    assert recording.metrics.value("publish_to_deliver_seconds_sum") == 0


@pytest.mark.parametrize("keeps", [False, True])
async def test_a_publisher_can_find_out_that_nobody_listens(keeps: bool) -> None:
    """On a topic with history another message finds it out, of which nobody sees anything."""
    recording = Recording()
    bus = MemoryBus(metrics=recording.metrics)
    relay = made(recording, bus, keeps=keeps)
    await bus.start()
    await bus.subscribe("p.topic.room.1", lambda data, at: relay._deliver(TOPIC, data, at))
    with relay.listener_check() as check:
        for topic in (TOPIC, "room:2"):
            await relay.publish(topic, "e", b"{}", check=check)
        assert await check.answers() == {"room:2": False}

    assert recording.metrics.value("bus_dropped_total") == 0
    assert recording.events == ([] if keeps else ["e"])


@pytest.mark.parametrize("event", ["phx_close", "chan_reply_1", "presence_state"])
async def test_a_reserved_event_from_the_bus_is_dropped_and_counted(parts: Any, event: str) -> None:
    _, recording, bus = parts
    bus.publish("p.topic.room.1", encode(Envelope(event, b"{}", False, NOW)))
    await asyncio.sleep(0)

    assert recording.sent == []
    assert recording.metrics.value("bus_dropped_total") == 1


@pytest.mark.parametrize("data", [b"", b"noise", b"\x09" * 40])
async def test_what_is_no_envelope_is_dropped_and_counted(parts: Any, data: bytes) -> None:
    _, recording, bus = parts
    bus.publish("p.topic.room.1", data)
    await asyncio.sleep(0)

    assert recording.sent == []
    assert recording.metrics.value("bus_dropped_total") == 1


async def test_a_publisher_whose_clock_is_ahead_counts_as_no_delay(parts: Any) -> None:
    _, recording, bus = parts
    bus.publish("p.topic.room.1", encode(Envelope("e", b"{}", False, NOW + 60)))
    await asyncio.sleep(0)

    assert recording.metrics.value("publish_to_deliver_seconds_count") == 1
    assert recording.metrics.value("publish_to_deliver_seconds_sum") == 0


async def test_what_others_keep_is_delivered_where_no_rule_keeps_it(parts: Any) -> None:
    """While a rule with history is being rolled out, some replicas do not have it yet."""
    _, recording, bus = parts
    data = encode(Envelope("e", b"{}", False, NOW))
    bus.exchange.send("p.topic.room.1", data, position=StreamPosition(7, 6, NOW, "p.store.room.1"))
    await asyncio.sleep(0)

    assert recording.sent == [Broadcast(TOPIC, "e", b"{}")]


def envelope(event: bytes, payload: bytes, kind: int = 1) -> bytes:
    return struct.pack(">BBdHI", 1, kind, NOW, len(event), 0) + event + payload


BAD = {
    "event": [envelope(b"e" * 300, b"SECRET", 2), envelope(b"\xff", b"{}")],
    "payload": [
        envelope(b"e", b'"SECRET"'),
        envelope(b"e", b'{"n":"SECRET\xff"}'),
        envelope(b"e", b'1]\n[null,null,"room:1","phx_close",{}'),
    ],
    "reserved event": [envelope(b"phx_close", b"{}")],
    "version": [b"SECRET"],
}


EACH = pytest.mark.parametrize(
    ("body", "problem"), [(body, problem) for problem, bodies in BAD.items() for body in bodies]
)


@EACH
async def test_what_no_gateway_would_send_is_named_without_its_payload(
    parts: Any, body: bytes, problem: str
) -> None:
    _, recording, bus = parts
    with structlog.testing.capture_logs() as logs:
        for data in (envelope(b"before", b"{}"), body, body, envelope(b"after", b"{}")):
            bus.publish("p.topic.room.1", data)
        await asyncio.sleep(0)

    assert recording.events == ["before", "after"]
    assert recording.metrics.value("bus_dropped_total") == 2
    assert [(e["subject"], e["problem"], e["throttle"]) for e in logs] == [
        ("p.topic.room.1", problem, problem)
    ] * 2
    assert "SECRET" not in str(logs)


@EACH
async def test_a_stored_one_is_passed_over_by_members_and_by_who_resumes(
    body: bytes, problem: str
) -> None:
    assert problem
    recording = Recording()
    bus = MemoryBus(metrics=recording.metrics)
    relay = made(recording, bus, keeps=True)
    await bus.start()
    await relay.subscribe(TOPIC)
    for data in (envelope(b"before", b"{}"), body, envelope(b"after", b"{}")):
        await relay.history.append(TOPIC, data)
    await asyncio.sleep(0)
    outcome, tail = await relay.resumer.resume(TOPIC, Newest(5), None)
    again = [relay.broadcast(TOPIC, message) for message in (*outcome.replay, *tail)]

    assert recording.events == ["before", "after"]
    assert [message and message.event for message in again] == ["before", None, "after"]
    assert relay.follower.level(TOPIC, 3)
    assert recording.metrics.value("bus_dropped_total") == 2
    await bus.close()


async def test_a_copy_of_another_topics_message_is_refused(parts: Any) -> None:
    _, recording, bus = parts
    forged = StreamPosition(7, 6, NOW, "p.store.room.2")
    with structlog.testing.capture_logs() as logs:
        bus.exchange.send("p.topic.room.1", envelope(b"e", b"{}"), position=forged)
        await asyncio.sleep(0)

    assert recording.sent == []
    assert recording.metrics.value("bus_dropped_total") == 1
    assert [entry["problem"] for entry in logs] == ["stored under another subject"]
