"""The tracker on a bus: what it is spared."""

from collections.abc import Callable

import pytest

from gateway.tracker.core import Tracker
from gateway.tracker.effects import TrackerEffect
from gateway.tracker.messages import Beat, Hello, TrackerMessage, encode
from gateway.tracker.service import TrackerService


class NoCarrier:
    """A bus that takes everything."""

    def to_topic(self, topic: str, message: bytes) -> None: ...

    def to_replica(self, replica: str, message: bytes) -> None: ...

    def to_all(self, message: bytes) -> None: ...


def nothing(*_: object) -> None:
    """Whatever it is told."""


def service(
    heard: Callable[[TrackerMessage], None],
    superseded: Callable[[], None],
    wall_clock: Callable[[], float] = lambda: 1.0,
) -> TrackerService:
    """A service that passes on what its core gets to read."""

    class Listening(Tracker):
        def receive(self, message: TrackerMessage, now: float) -> list[TrackerEffect]:
            heard(message)
            return super().receive(message, now)

    return TrackerService(
        Listening("me", 5, down_after_seconds=10.0, spread=lambda: 0.5),
        NoCarrier(),
        clock=lambda: 1.0,
        wall_clock=wall_clock,
        lost=nothing,
        superseded=superseded,
    )


@pytest.mark.parametrize(
    "message", [Beat("me", 5), Hello("me", 5, "p:room:1", 0, ())], ids=["to all", "to a key"]
)
def test_what_it_said_itself_is_not_read_when_it_comes_back(message: TrackerMessage) -> None:
    heard: list[TrackerMessage] = []
    service(heard.append, nothing).receive(encode(message))

    assert heard == []


@pytest.mark.parametrize("name", ["me", "other", "m", "mee"])
def test_what_others_say_is_read_even_under_its_name(name: str) -> None:
    heard: list[TrackerMessage] = []
    ended: list[bool] = []
    service(heard.append, lambda: ended.append(True)).receive(encode(Beat(name, 6)))

    assert heard == [Beat(name, 6)]
    assert bool(ended) == (name == "me")


@pytest.mark.parametrize(("now", "pause"), [(100.0, 0.25), (100.1, 0.15), (100.4375, 0.0625)])
async def test_ticks_of_all_replicas_fall_together(
    now: float, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("gateway.tracker.service.asyncio.sleep", sleep)
    await service(nothing, nothing, lambda: now).next_tick(lambda: (0, 0))

    assert slept == [pytest.approx(pause)]
