"""Readiness and the drain."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.channels.connections import Connections
from gateway.errors import BusUnavailable
from gateway.lifecycle import BATCH_SECONDS, Drain, Readiness, _even_batches
from gateway.metrics import Metrics
from gateway.protocol.reasons import CloseCode


class FakeConnection:
    """A connection that ends when it is closed, unless it is deaf."""

    def __init__(self, connections: "FakeConnections", *, deaf: bool = False) -> None:
        self.connections = connections
        self.deaf = deaf
        self.codes: list[CloseCode] = []
        self.aborted = False
        self.moved = False

    def buffered(self) -> int:
        return 0

    def overflowed(self) -> None:
        raise AssertionError

    def move(self) -> None:
        self.moved = True

    def close(self, code: CloseCode) -> None:
        assert self.moved, "the others know before the client does"
        self.codes.append(code)
        if not self.deaf:
            self.end()

    def abort(self) -> None:
        self.aborted = True
        self.end()

    def end(self) -> None:
        self.connections.open.discard(self)
        if not self.connections.open:
            self.connections.empty.set()


class FakeConnections:
    """As much of all connections as lifecycle sees."""

    def __init__(self) -> None:
        self.draining = False
        self.open: set[FakeConnection] = set()
        self.empty = asyncio.Event()

    def refusal(self) -> str | None:
        return "draining" if self.draining else None


async def turns() -> None:
    """Let everything go on that does not wait for time to pass."""
    for _ in range(5):
        await asyncio.sleep(0)


def drain_of(
    connections: FakeConnections,
    *,
    delay: float = 0,
    window: float = 0,
    then: Callable[[], None] = lambda: None,
    announced: Callable[[], Awaitable[None]] = turns,
) -> Drain:
    """A drain of a fake connections."""
    return Drain(
        as_connections(connections),
        Metrics(),
        delay_seconds=delay,
        window_seconds=window,
        announced=announced,
        then=then,
    )


def as_connections(fake: FakeConnections) -> Connections:
    """A fake in an connections's place."""
    return fake  # type: ignore[return-value]  # it has what lifecycle uses


async def test_ready_is_serving_and_no_doubt_of_any_part() -> None:
    connections = FakeConnections()
    doubts: list[str | None] = [None, None]
    readiness = Readiness(as_connections(connections), lambda: doubts[0], lambda: doubts[1])
    assert readiness.reasons() == []

    doubts[1] = "unsure"
    assert readiness.reasons() == ["unsure"]
    doubts[0] = "bus_down"
    connections.draining = True
    assert readiness.reasons() == ["draining", "bus_down", "unsure"]


async def test_a_drain_turns_new_clients_away_before_it_closes_anybody() -> None:
    connections = FakeConnections()
    connection = FakeConnection(connections)
    connections.open.add(connection)
    ended: list[str] = []
    drain = drain_of(connections, delay=3600, then=lambda: ended.append("tails"))
    drain.start()
    task = asyncio.create_task(drain.next_run())
    await turns()

    assert connections.draining
    assert connection.codes == []
    assert ended == []
    drain.hurry()
    await task
    assert connection.codes == [CloseCode.SERVICE_RESTART]
    assert ended == ["tails"]


async def test_hurrying_skips_the_window_too() -> None:
    connections = FakeConnections()
    sockets = [FakeConnection(connections) for _ in range(50)]
    connections.open |= set(sockets)
    drain = drain_of(connections, window=3600)
    drain.hurry()
    drain.start()
    await drain.next_run()

    assert all(connection.codes == [CloseCode.SERVICE_RESTART] for connection in sockets)


async def test_who_does_not_answer_is_cut_off_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.lifecycle.CLOSING_SECONDS", 0.0)
    connections = FakeConnections()
    deaf = FakeConnection(connections, deaf=True)
    connections.open.add(deaf)
    drain = drain_of(connections)
    drain.start()
    await drain.next_run()
    assert not deaf.aborted, "others need not wait for it"
    await drain.let_go()

    assert deaf.codes == [CloseCode.SERVICE_RESTART]
    assert deaf.aborted


async def test_who_is_cut_off_has_ended_before_the_rest_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What follows from its end, a fact for the backend say, is otherwise lost."""
    monkeypatch.setattr("gateway.lifecycle.CLOSING_SECONDS", 0.0)
    connections = FakeConnections()

    class EndsLater(FakeConnection):
        """A connection whose loss is heard of in a later turn of the event loop."""

        def abort(self) -> None:
            asyncio.get_running_loop().call_soon(super().abort)

    connections.open.add(EndsLater(connections, deaf=True))
    await drain_of(connections).let_go()

    assert not connections.open


async def test_what_the_closing_itself_takes_does_not_lengthen_the_window() -> None:
    connections, waits, now = FakeConnections(), [], 0.0

    class Slow(FakeConnection):
        """A connection that takes a third of a batch's time to close."""

        def close(self, code: CloseCode) -> None:
            nonlocal now
            now += BATCH_SECONDS / 3
            super().close(code)

    class Waiting(Drain):
        """A drain on the test's clock."""

        async def _wait(self, seconds: float, _: int) -> bool:
            nonlocal now
            waits.append(seconds)
            now += max(0.0, seconds)
            return True

    connections.open |= {Slow(connections) for _ in range(20)}
    window = 10 * BATCH_SECONDS
    drain = Waiting(
        as_connections(connections),
        Metrics(),
        delay_seconds=0,
        window_seconds=window,
        announced=turns,
        then=lambda: None,
        clock=lambda: now,
    )
    drain.start()
    await drain.next_run()

    assert not connections.open
    assert len(waits) == 1 + 10
    assert now == pytest.approx(window)


async def test_the_others_know_who_comes_before_anybody_is_closed() -> None:
    connections = FakeConnections()
    leaving = [FakeConnection(connections) for _ in range(3)]
    connections.open.update(leaving)
    known, asked = asyncio.Event(), asyncio.Event()

    async def announced() -> None:
        asked.set()
        await known.wait()

    drain = drain_of(connections, announced=announced)
    drain.start()
    task = asyncio.create_task(drain.next_run())
    await asked.wait()
    await turns()
    assert [(each.moved, each.codes) for each in leaving] == [(True, [])] * 3

    known.set()
    await asyncio.wait_for(task, 10)
    assert [each.codes for each in leaving] == [[CloseCode.SERVICE_RESTART]] * 3


async def test_without_the_bus_they_are_closed_all_the_same() -> None:
    async def announced() -> None:
        raise BusUnavailable("down")

    connections = FakeConnections()
    connections.open.add(FakeConnection(connections))
    drain = drain_of(connections, announced=announced)
    drain.start()
    await asyncio.wait_for(drain.next_run(), 10)

    assert not connections.open


async def test_an_aborted_drain_leaves_who_is_there_and_begins_anew_when_it_is_wanted_again() -> (
    None
):
    connections = FakeConnections()
    staying = FakeConnection(connections)
    connections.open.add(staying)
    metrics = Metrics()
    ended: list[bool] = []
    drain = Drain(
        as_connections(connections),
        metrics,
        delay_seconds=3600,
        window_seconds=0,
        announced=turns,
        then=lambda: ended.append(True),
    )
    running = asyncio.create_task(drain.next_run())
    drain.start()
    drain.start()
    await turns()
    assert drain.state == "draining"

    assert drain.abort()
    assert drain.abort(), "nothing drains any more, which is what was wanted"
    drain.start()  # at once, before the first one has noticed
    await asyncio.wait_for(running, 10)

    assert staying.codes == []
    running = asyncio.create_task(drain.next_run())
    await turns()
    assert not running.done(), "the second one has a delay of its own"
    assert drain.abort()
    await asyncio.wait_for(running, 10)
    assert (connections.draining, drain.state, staying.codes) == (False, "serving", [])
    assert ended == []
    assert metrics.registry.get_sample_value("gateway_drain_state") == 0


async def test_who_was_closed_before_the_abort_stays_closed_and_nobody_else_is() -> None:
    connections = FakeConnections()

    class Last(FakeConnection):
        """A connection at whose end the operator thinks better of it."""

        def close(self, code: CloseCode) -> None:
            super().close(code)
            drain.abort()

    sockets = [Last(connections) for _ in range(10)]
    connections.open |= set(sockets)
    drain = drain_of(connections, window=10 * BATCH_SECONDS)
    drain.start()
    await drain.next_run()

    assert len(connections.open) == 9
    assert sum(bool(each.codes) for each in sockets) == 1


async def test_the_end_of_the_process_goes_on_with_a_drain_and_nobody_aborts_it() -> None:
    connections = FakeConnections()
    connection = FakeConnection(connections)
    connections.open.add(connection)
    drain = drain_of(connections)
    running = asyncio.create_task(drain.next_run())
    drain.start()
    await running
    assert (drain.state, drain.connections, drain.ending) == ("drained", 0, False)

    await asyncio.wait_for(drain.end(), 10)

    assert not drain.abort()
    assert (drain.state, drain.ending) == ("drained", True)
    assert connection.codes == [CloseCode.SERVICE_RESTART]


@given(st.integers(0, 500), st.integers(1, 300))
def test_batches_are_even_and_leave_nobody_out(count: int, batches: int) -> None:
    leaving: list[Any] = list(range(count))  # any items will do
    parts = _even_batches(leaving, batches)

    assert [item for part in parts for item in part] == leaving
    assert len(parts) <= batches
    assert all(len(part) in {count // batches, count // batches + 1} for part in parts[:-1])
    assert not parts or parts[-1]
