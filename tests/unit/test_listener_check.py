"""Whether anybody listens on a topic: for certain, certainly not, or not known."""

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.bus.memory import MemoryBus
from gateway.errors import BusUnavailable
from gateway.hub.registry import Member, Registry
from gateway.listener_check import ListenerCheck
from gateway.metrics import Metrics


@pytest.fixture
async def bus() -> MemoryBus:
    bus = MemoryBus(metrics=Metrics())
    await bus.start()
    return bus


@pytest.fixture
def registry() -> Registry:
    """With a member of ``here``."""
    registry = Registry()
    outlet: Any = SimpleNamespace(wire=None)
    registry.add("here", Member(outlet, None, drops=False))  # type: ignore[arg-type]
    return registry


def publish(bus: MemoryBus, asked: ListenerCheck, *topics: str) -> None:
    for topic in topics:
        bus.publish(topic, b"x", no_responders=asked.ask(topic))


async def test_a_member_here_listens_and_nobody_does_where_nobody_is_subscribed(
    bus: MemoryBus, registry: Registry
) -> None:
    await bus.subscribe("elsewhere", lambda *_: None)
    with ListenerCheck(bus, registry) as asked:
        publish(bus, asked, "here", "elsewhere", "nowhere")
        assert await asked.answers() == {"here": True, "nowhere": False}


async def test_what_is_known_here_costs_nothing(
    bus: MemoryBus, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def flush() -> None:
        raise AssertionError

    monkeypatch.setattr(bus, "flush", flush)
    with ListenerCheck(bus, registry) as asked:
        assert asked.ask("here") is None
        assert await asked.answers() == {"here": True}


async def test_a_server_that_is_gone_says_nothing(
    bus: MemoryBus, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone() -> None:
        raise BusUnavailable("gone")

    await bus.subscribe("elsewhere", lambda *_: None)
    monkeypatch.setattr(bus, "flush", gone)
    with ListenerCheck(bus, registry) as asked:
        publish(bus, asked, "here", "elsewhere")
        assert await asked.answers() == {"here": True}


async def test_somebody_may_have_got_one_of_several_messages(
    bus: MemoryBus, registry: Registry
) -> None:
    with ListenerCheck(bus, registry) as asked:
        publish(bus, asked, "once", "never", "never")
        subscription = await bus.subscribe("once", lambda *_: None)
        publish(bus, asked, "once")
        subscription.close()
        assert await asked.answers() == {"never": False}


async def test_nobody_waits_any_more_afterwards(bus: MemoryBus, registry: Registry) -> None:
    with ListenerCheck(bus, registry) as asked:
        waiting = asked.ask("elsewhere")
    assert waiting is not None
    assert waiting.cancelled()
