"""The newest of all clocks, and how far they are apart."""

from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from gateway.cluster.clock import LOOKS, WARN_AGAIN_SECONDS, ClusterClock
from gateway.errors import BusUnavailable

STARTED = 1_000_000.0
"""Unix seconds when the monotonic clock was 0."""


class Server:
    """A bus whose server says the time, or none, or nothing at all."""

    def __init__(self) -> None:
        self.time: float | None = None
        self.down = False

    async def server_time(self) -> float | None:
        if self.down:
            raise BusUnavailable("down")
        return self.time


class Replica:
    """A replica whose clock is off by so many seconds."""

    def __init__(self, off: float = 0.0) -> None:
        self.off = off
        self.monotonic = SimpleNamespace(now=0.0)
        self.server = Server()
        self.peers: dict[str, float] = {}
        self.clock = ClusterClock(
            self.server,
            lambda: self.peers,
            wall_clock=lambda: self.true_time + self.off,
            clock=lambda: self.monotonic.now,
        )

    @property
    def true_time(self) -> float:
        return STARTED + float(self.monotonic.now)


@pytest.mark.parametrize(
    ("own", "others", "newest", "skew"),
    [
        (0.0, {}, 0.0, 0.0),
        (-30.0, {}, -30.0, 0.0),
        (-30.0, {"b": 0.0}, 0.0, 30.0),
        (-30.0, {"b": -1.0, "c": 0.5}, 0.5, 30.5),
        (0.0, {"b": -30.0}, 0.0, 30.0),
        (0.0, {"b": 86_400.0}, 0.0, 86_400.0),
    ],
    ids=["alone", "alone and late", "late", "the newest", "another is late", "another is broken"],
)
def test_the_newest_clock_counts_unless_it_is_broken(
    own: float, others: dict[str, float], newest: float, skew: float
) -> None:
    replica = Replica(own)
    replica.peers = {name: STARTED + off for name, off in others.items()}
    replica.monotonic.now = 500.0

    assert replica.clock.now() == pytest.approx(replica.true_time + newest)
    assert replica.clock.skew() == pytest.approx(skew)


async def test_the_server_has_a_clock_too_and_its_quickest_answer_is_the_best() -> None:
    replica = Replica(-30.0)
    for late in (3.0, 0.0, 9.0):
        replica.monotonic.now += 10
        replica.server.time = replica.true_time - late
        await replica.clock.look()
    replica.server.down = True
    await replica.clock.look()
    replica.server.down, replica.server.time = False, None
    await replica.clock.look()
    assert replica.clock.now() == pytest.approx(replica.true_time)

    for _ in range(LOOKS):  # somebody has set it right, or another server is asked
        replica.server.time = replica.true_time - 20
        await replica.clock.look()
    assert replica.clock.now() == pytest.approx(replica.true_time - 20)


def test_clocks_that_differ_are_warned_of_now_and_then() -> None:
    replica = Replica()
    replica.peers = {"b": STARTED + 1.9}
    with capture_logs() as lines:
        replica.clock.skew()
        assert lines == []
        replica.peers = {"b": STARTED - 2.1}
        replica.clock.skew()
        replica.clock.skew()
        replica.monotonic.now += WARN_AGAIN_SECONDS
        replica.clock.skew()

    assert [(line["other"], line["seconds_ahead"], line["held"]) for line in lines] == [
        ("b", -2.1, 0),
        ("b", -2.1, 1),
    ]
    assert lines[0]["log_level"] == "warning"
