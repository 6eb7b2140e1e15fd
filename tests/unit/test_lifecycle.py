"""Readiness and the drain."""

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.lifecycle import BATCH_SECONDS, Drain, Readiness, _even_batches
from gateway.metrics import Metrics
from gateway.protocol.reasons import CloseCode
from gateway.transport.endpoint import Endpoint, Phase


class FakeConnection:
    """A connection that ends when it is closed, unless it is deaf."""

    def __init__(self, endpoint: "FakeEndpoint", *, deaf: bool = False) -> None:
        self.endpoint = endpoint
        self.deaf = deaf
        self.codes: list[CloseCode] = []
        self.aborted = False

    def buffered(self) -> int:
        return 0

    def overflowed(self) -> None:
        raise AssertionError

    def close(self, code: CloseCode) -> None:
        self.codes.append(code)
        if not self.deaf:
            self.end()

    def abort(self) -> None:
        self.aborted = True
        self.end()

    def end(self) -> None:
        self.endpoint.connections.discard(self)
        if not self.endpoint.connections:
            self.endpoint.empty.set()


class FakeEndpoint:
    """As much of an endpoint as lifecycle sees."""

    def __init__(self) -> None:
        self.phase = Phase.SERVING
        self.connections: set[FakeConnection] = set()
        self.empty = asyncio.Event()

    def refusal(self) -> str | None:
        return None if self.phase is Phase.SERVING else self.phase.value


class BusState(msgspec.Struct):
    """A bus that is up or down."""

    connected: bool = True


def drain_of(endpoint: FakeEndpoint, *, delay: float = 0, window: float = 0) -> Drain:
    """A drain of a fake endpoint."""
    return Drain(as_endpoint(endpoint), Metrics(), delay_seconds=delay, window_seconds=window)


def as_endpoint(fake: FakeEndpoint) -> Endpoint:
    """A fake in an endpoint's place."""
    return fake  # type: ignore[return-value]  # it has what lifecycle uses


def readiness_of(endpoint: FakeEndpoint, bus: BusState) -> Readiness:
    """The readiness of a fake endpoint."""
    return Readiness(as_endpoint(endpoint), bus)


async def test_ready_is_serving_on_a_connected_bus() -> None:
    endpoint, bus = FakeEndpoint(), BusState()
    readiness = readiness_of(endpoint, bus)
    assert readiness.reasons() == []

    bus.connected = False
    assert readiness.reasons() == ["bus_down"]
    endpoint.phase = Phase.DRAINING
    assert readiness.reasons() == ["draining", "bus_down"]


async def test_a_part_that_has_doubts_keeps_it_from_being_ready() -> None:
    doubts: list[str | None] = [None, None]
    readiness = Readiness(
        as_endpoint(FakeEndpoint()), BusState(), lambda: doubts[0], lambda: doubts[1]
    )
    assert readiness.reasons() == []

    doubts[1] = "unsure"
    assert readiness.reasons() == ["unsure"]


async def test_a_drain_turns_new_clients_away_before_it_closes_anybody() -> None:
    endpoint = FakeEndpoint()
    connection = FakeConnection(endpoint)
    endpoint.connections.add(connection)
    drain = drain_of(endpoint, delay=3600)
    task = asyncio.create_task(drain.run())
    await asyncio.sleep(0)

    assert endpoint.phase is Phase.DRAINING
    assert connection.codes == []
    drain.hurry()
    await task
    assert connection.codes == [CloseCode.SERVICE_RESTART]


async def test_hurrying_skips_the_window_too() -> None:
    endpoint = FakeEndpoint()
    connections = [FakeConnection(endpoint) for _ in range(50)]
    endpoint.connections |= set(connections)
    drain = drain_of(endpoint, window=3600)
    drain.hurry()
    await drain.run()

    assert all(connection.codes == [CloseCode.SERVICE_RESTART] for connection in connections)


async def test_who_does_not_answer_is_cut_off_at_the_end() -> None:
    endpoint = FakeEndpoint()
    deaf = FakeConnection(endpoint, deaf=True)
    endpoint.connections.add(deaf)
    drain = drain_of(endpoint)
    await drain.run()
    assert not deaf.aborted, "others need not wait for it"
    await drain.let_go()

    assert deaf.codes == [CloseCode.SERVICE_RESTART]
    assert deaf.aborted


async def test_who_is_cut_off_has_ended_before_the_rest_is_stopped() -> None:
    """What follows from its end, a fact for the backend say, is otherwise lost."""
    endpoint = FakeEndpoint()

    class EndsLater(FakeConnection):
        """A connection whose loss is heard of in a later turn of the event loop."""

        def abort(self) -> None:
            asyncio.get_running_loop().call_soon(super().abort)

    endpoint.connections.add(EndsLater(endpoint, deaf=True))
    await drain_of(endpoint).let_go()

    assert not endpoint.connections


async def test_what_the_closing_itself_takes_does_not_lengthen_the_window() -> None:
    endpoint, waits, now = FakeEndpoint(), [], 0.0

    class Slow(FakeConnection):
        """A connection that takes a third of a batch's time to close."""

        def close(self, code: CloseCode) -> None:
            nonlocal now
            now += BATCH_SECONDS / 3
            super().close(code)

    class Waiting(Drain):
        """A drain on the test's clock."""

        async def _wait(self, seconds: float) -> None:
            nonlocal now
            waits.append(seconds)
            now += max(0.0, seconds)

    endpoint.connections |= {Slow(endpoint) for _ in range(20)}
    window = 10 * BATCH_SECONDS
    drain = Waiting(
        as_endpoint(endpoint), Metrics(), delay_seconds=0, window_seconds=window, clock=lambda: now
    )
    await drain.run()

    assert not endpoint.connections
    assert len(waits) == 1 + 10
    assert now == pytest.approx(window)


@given(st.integers(0, 500), st.integers(1, 300))
def test_batches_are_even_and_leave_nobody_out(count: int, batches: int) -> None:
    leaving: list[Any] = list(range(count))  # any items will do
    parts = _even_batches(leaving, batches)

    assert [item for part in parts for item in part] == leaving
    assert len(parts) <= batches
    assert all(len(part) in {count // batches, count // batches + 1} for part in parts[:-1])
    assert not parts or parts[-1]
