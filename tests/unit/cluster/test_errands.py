"""What one replica does for another: done, declined, lost."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.bus.envelope import Control, encode_control
from gateway.bus.memory import MemoryBus
from gateway.bus.subjects import Subjects
from gateway.cluster import Cluster
from gateway.cluster.questions import Request, encode
from gateway.errors import BusUnavailable, OutcomeUnknown
from gateway.metrics import BusCounters, Metrics

SUBJECTS = Subjects("test")
SECONDS = 30.0


class Replicas:
    """Two on one bus, ``a`` and ``b``."""

    def __init__(self) -> None:
        self.bus = MemoryBus(metrics=BusCounters(Metrics()))
        self.undecodable: list[None] = []
        self.a, self.b = self.made("a"), self.made("b")

    def made(self, replica: str) -> Cluster:
        """One, not joined yet."""
        topics: Any = SimpleNamespace()
        return Cluster(
            replica,
            self.bus,
            SUBJECTS,
            topics,
            live=tuple,
            undecodable=lambda: self.undecodable.append(None),
        )


@pytest.fixture
async def replicas() -> Replicas:
    """Two that listen."""
    made = Replicas()
    await made.bus.start()
    for cluster in (made.a, made.b):
        await cluster.join()
    return made


async def test_the_other_does_it_and_says_what_came_of_it(replicas: Replicas) -> None:
    async def echo(body: bytes) -> bytes:
        return body * 2

    replicas.b.run_errand = echo
    assert await replicas.a.errand("b", b"x", SECONDS) == b"xx"


async def test_an_answer_may_be_longer_than_the_bus_carries(replicas: Replicas) -> None:
    async def much(_: bytes) -> bytes:
        return b"x" * (3 * replicas.bus.max_envelope_bytes)

    replicas.b.run_errand = much
    assert await replicas.a.errand("b", b"", SECONDS) == await much(b"")


async def test_nobody_there_is_known_at_once(replicas: Replicas) -> None:
    assert await replicas.a.errand("c", b"x", SECONDS) is None


async def test_silence_leaves_it_open_whether_it_was_done(replicas: Replicas) -> None:
    with pytest.raises(OutcomeUnknown):
        await replicas.a.errand("b", b"x", 0.01)


class DyingBus:
    """A bus on which the other replica hears one message and is gone."""

    def __init__(self) -> None:
        self.kinds: list[int] = []

    def publish(self, _: str, body: bytes, *, unheard: Callable[[], None]) -> None:
        self.kinds.append(body[1])
        if len(self.kinds) > 1:
            unheard()


async def test_who_goes_away_amid_an_errand_is_noticed(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errand itself is sent once, whatever is sent to find out who is there."""
    monkeypatch.setattr("gateway.cluster.links.PROBE_SECONDS", 0.0)
    bus: Any = DyingBus()
    replicas.a._bus = bus

    assert await replicas.a.errand("b", b"x", SECONDS) is None
    assert bus.kinds == [Control.ERRAND, Control.PROBE]


async def test_what_cannot_be_read_is_counted_and_not_answered(replicas: Replicas) -> None:
    async def cannot(_: bytes) -> bytes:
        raise ValueError

    replicas.b.run_errand = cannot
    with pytest.raises(OutcomeUnknown):
        await replicas.a.errand("b", b"x", 0.01)
    assert len(replicas.undecodable) == 1


async def test_without_a_bus_it_is_not_done(replicas: Replicas) -> None:
    await replicas.bus.close()
    with pytest.raises(BusUnavailable):
        await replicas.a.errand("b", b"x", SECONDS)


async def test_an_errand_this_replica_runs_for_nobody_harms_nobody(replicas: Replicas) -> None:
    message = encode_control(Control.ERRAND, encode(Request("a", 1, b"")))
    replicas.bus.publish(SUBJECTS.replica("b"), message)
    replicas.bus.publish(SUBJECTS.replica("b"), message[:3])
    assert await replicas.a.errand("c", b"x", SECONDS) is None
    assert len(replicas.undecodable) == 1
