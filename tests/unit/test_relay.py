"""From the bus to the hub: what is passed on, and what is not."""

import asyncio
from typing import Any

import pytest

from gateway.audience import Audience
from gateway.bus.envelope import Envelope, encode
from gateway.bus.memory import MemoryBus
from gateway.bus.stream_position import StreamPosition
from gateway.bus.subjects import Subjects
from gateway.history.no_history import NoHistory
from gateway.hub.broadcast import Broadcast
from gateway.hub.registry import Registry
from gateway.relay import Relay
from tests.support.counted import Counted

TOPIC = "room:1"
NOW = 1000.0


class Recording:
    """The hub, and what the relay and the bus count."""

    def __init__(self) -> None:
        self.sent: list[Broadcast] = []
        self.metrics = Counted()

    def send(self, message: Broadcast) -> None:
        self.sent.append(message)


@pytest.fixture
async def parts() -> Any:
    """A relay on a memory bus, its recording, and the bus."""
    recording = Recording()
    bus = MemoryBus(metrics=recording.metrics)
    relay = Relay(
        bus=bus,
        subjects=Subjects("p"),
        registry=Registry(),
        fanout=recording,  # type: ignore[arg-type]  # it has what the relay uses
        metrics=recording.metrics,
        history=NoHistory(),
        policy=lambda _: None,
        bounded=False,
        control=lambda *_: None,
        clock=lambda: NOW,
    )
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
    bus.exchange.send("p.topic.room.1", data, position=StreamPosition(7, 6, NOW))
    await asyncio.sleep(0)

    assert recording.sent == [Broadcast(TOPIC, "e", b"{}")]
