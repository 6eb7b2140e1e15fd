"""Events nobody waits for: in order for each user, again until they are taken, and bounded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise

import pytest
import structlog

from gateway.errors import UpstreamRefused, UpstreamTimeout, UpstreamUnavailable
from gateway.metrics import Metrics
from gateway.upstream import outbox as outbox_module
from gateway.upstream.call import Call
from gateway.upstream.client import Upstream
from gateway.upstream.outbox import KEEP_SECONDS, Outbox, Tell
from tests.support.clock import Clock
from tests.unit.upstream.scripted import Request, closing, serving
from tests.unit.upstream.test_client import Counted, Settings, turns

USER_ONLINE = "gateway.user.online"
USER_OFFLINE = "gateway.user.offline"
REPLICA_LOST = "gateway.replica.lost"


def online(user: str) -> Call:
    return Call(USER_ONLINE, user=user)


def offline(user: str) -> Call:
    return Call(USER_OFFLINE, user=user)


class Backend:
    """Takes events, or does what a test says.

    Attributes:
        tries: What it was told: when, of whom, type, id and birth.
        problems: Users whose events fail, and how.
        gate: While not set, nobody gets an answer.
    """

    def __init__(self) -> None:
        self.tries: list[tuple[float, str | None, str, str, float]] = []
        self.problems: dict[str | None, Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.active = 0

    async def tell(self, call: Call, call_id: str, occurred_at: float) -> None:
        now = asyncio.get_running_loop().time()
        self.tries.append((now, call.user, call.type, call_id, occurred_at))
        self.active += 1
        try:
            await self.gate.wait()
        finally:
            self.active -= 1
        if call.user in self.problems:
            raise self.problems[call.user]

    def told(self, user: str | None = None) -> list[str]:
        """Types of the events of a user."""
        return [kind for _, who, kind, *_ in self.tries if who == user]


class Counts(Metrics):
    """What was counted."""

    @property
    def waiting(self) -> int:
        return int(self.registry.get_sample_value("gateway_upstream_events_waiting") or 0)

    @property
    def dropped(self) -> dict[str, int]:
        [family] = self.upstream_events_dropped.collect()
        return {
            sample.labels["reason"]: int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_total")
        }


class Setting:
    """An outbox with its backend, and time that only passes when told to."""

    def __init__(self, max_in_flight: int, chance: Callable[[], float]) -> None:
        self.clock = Clock()
        self.clock.now = self.start = float(int(self.clock.now) + 1)  # sums stay exact
        self.backend = Backend()
        self.counts = Counts()
        self.outbox = Outbox(
            self.backend.tell,
            self.counts,
            max_in_flight=max_in_flight,
            wall_clock=lambda: self.clock.now - self.start,
            chance=chance,
        )

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in steps shorter than any pause."""
        await self.clock.run()
        until = self.clock.now + seconds
        while self.clock.now < until:
            await self.clock.run(min(0.125, until - self.clock.now))


@asynccontextmanager
async def running(
    max_in_flight: int = 100, chance: Callable[[], float] = lambda: 0.0
) -> AsyncIterator[Setting]:
    setting = Setting(max_in_flight, chance)
    task = asyncio.create_task(setting.outbox.run())
    await setting.clock.run()
    try:
        yield setting
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):  # and nothing else: no delivery may have crashed
            await task


DOWN = UpstreamUnavailable("unreachable")


async def test_an_event_is_told_once_and_forgotten() -> None:
    async with running() as at:
        at.outbox.tell(online("1"))
        assert at.counts.waiting == 1
        await at.clock.run()

        assert at.backend.told("1") == [USER_ONLINE]
        assert (at.counts.waiting, at.counts.dropped) == (0, {})
        assert at.outbox._queues == {}


async def test_events_wait_until_somebody_runs() -> None:
    setting = Setting(100, lambda: 0.0)
    setting.outbox.tell(online("1"))
    await setting.clock.run()
    assert setting.backend.tries == []
    task = asyncio.create_task(setting.outbox.run())
    await setting.clock.run()
    task.cancel()

    assert setting.backend.told("1") == [USER_ONLINE]


async def test_events_of_one_user_are_told_in_order_one_at_a_time() -> None:
    async with running() as at:
        at.backend.gate.clear()
        for _ in range(3):
            at.outbox.tell(online("1"))
            at.outbox.tell(offline("1"))
        await at.clock.run()
        assert at.backend.told("1") == [USER_ONLINE]
        at.backend.gate.set()
        await at.pass_time(1)

        assert at.backend.told("1") == [USER_ONLINE, USER_OFFLINE] * 3


@pytest.mark.parametrize("problem", [DOWN, UpstreamTimeout(), UpstreamRefused(404, b"{}")])
async def test_nobody_waits_for_a_user_whose_events_fail(problem: Exception) -> None:
    async with running(max_in_flight=1) as at:
        at.backend.problems["1"] = problem
        at.outbox.tell(online("1"))
        at.outbox.tell(offline("1"))
        at.outbox.tell(online("2"))
        await at.pass_time(10)
        assert at.backend.told("2") == [USER_ONLINE]
        assert set(at.backend.told("1")) == {USER_ONLINE}
        at.backend.problems.clear()
        await at.pass_time(30)

        assert at.backend.told("1")[-2:] == [USER_ONLINE, USER_OFFLINE]
        assert at.counts.waiting == 0


async def test_an_event_is_told_again_unchanged_after_longer_and_longer_pauses() -> None:
    async with running() as at:
        at.backend.problems["1"] = DOWN
        await at.pass_time(8)
        at.outbox.tell(online("1"))
        await at.pass_time(150)

        times = [moment for moment, *_ in at.backend.tries]
        pauses = [after - before for before, after in pairwise(times)]
        assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
        assert len({call_id for _, _, _, call_id, _ in at.backend.tries}) == 1
        assert {occurred_at for *_, occurred_at in at.backend.tries} == {8.0}


async def test_chance_shortens_pauses_by_up_to_half() -> None:
    async with running(chance=lambda: 1.0) as at:
        at.backend.problems["1"] = DOWN
        at.outbox.tell(online("1"))
        await at.pass_time(1)

        assert [moment - at.start for moment, *_ in at.backend.tries] == [0, 0.25, 0.75]


async def test_the_next_event_begins_with_short_pauses_again() -> None:
    async with running() as at:
        at.backend.problems["1"] = DOWN
        at.outbox.tell(online("1"))
        at.outbox.tell(offline("1"))
        await at.pass_time(20)
        at.backend.problems.clear()
        await at.pass_time(20)
        at.backend.problems["1"] = DOWN
        at.outbox.tell(online("1"))
        tries = len(at.backend.tries)
        await at.pass_time(2)

        assert len(at.backend.tries) == tries + 3


async def test_after_five_minutes_an_event_is_dropped_and_the_next_has_its_turn() -> None:
    async with running() as at:
        at.backend.problems["1"] = DOWN
        at.outbox.tell(online("1"))
        await at.pass_time(60)
        at.outbox.tell(offline("1"))
        await at.pass_time(KEEP_SECONDS - 60)
        assert at.counts.dropped == {"expired": 1}
        assert at.counts.waiting == 1
        first = [moment for moment, _, kind, *_ in at.backend.tries if kind == USER_ONLINE]
        assert KEEP_SECONDS - 30 <= first[-1] - first[0] < KEEP_SECONDS
        at.backend.problems.clear()
        await at.pass_time(60)

        assert at.backend.told("1")[-1] == USER_OFFLINE
        assert at.counts.dropped == {"expired": 1}


async def test_an_event_that_never_had_its_turn_in_time_is_dropped_unsent() -> None:
    async with running(max_in_flight=1) as at:
        at.backend.gate.clear()
        at.outbox.tell(online("1"))
        at.outbox.tell(online("2"))
        await at.clock.run()
        await at.clock.run(KEEP_SECONDS)
        at.backend.gate.set()
        await at.clock.run()

        assert at.backend.told("2") == []
        assert at.counts.dropped == {"expired": 1}
        assert at.counts.waiting == 0


@pytest.mark.parametrize(("max_in_flight", "at_a_time"), [(100, 25), (7, 1), (3, 1), (1, 1)])
async def test_events_take_a_quarter_of_what_may_be_under_way(
    max_in_flight: int, at_a_time: int
) -> None:
    async with running(max_in_flight) as at:
        at.backend.gate.clear()
        for user in range(200):
            at.outbox.tell(online(str(user)))
        await at.clock.run()
        assert at.backend.active == at_a_time
        at.backend.gate.set()
        await turns(lambda: at.counts.waiting == 0)

        assert len(at.backend.tries) == 200


async def test_one_user_has_no_more_waiting_than_there_is_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "MOST_WAITING", 100)
    async with running() as at:
        at.backend.gate.clear()
        for _ in range(100):
            at.outbox.tell(online("1"))
        assert at.counts.waiting == 50
        assert at.counts.dropped == {"full": 50}
        at.outbox.tell(online("2"))
        assert at.counts.waiting == 51
        at.backend.gate.set()
        await turns(lambda: at.counts.waiting == 0)


async def test_the_newest_beyond_the_bound_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "MOST_WAITING", 100)
    async with running() as at:
        at.backend.gate.clear()
        for user in range(102):
            at.outbox.tell(online(str(user)))
        assert at.counts.dropped == {"full": 2}
        assert at.counts.waiting == 100
        at.backend.gate.set()
        await turns(lambda: at.counts.waiting == 0)
        at.outbox.tell(online("again"))
        await at.clock.run()

        assert at.backend.told("again") == [USER_ONLINE]
        assert at.backend.told("100") == []


async def test_what_is_of_no_user_is_told_in_order() -> None:
    async with running() as at:
        for sessions in (1, 2):
            at.outbox.tell(Call(REPLICA_LOST, replica="b", sessions=sessions))
        await at.clock.run()
        await at.clock.run()

        assert at.backend.told(None) == [REPLICA_LOST] * 2


async def test_a_bug_with_one_event_harms_no_other() -> None:
    async with running(max_in_flight=1) as at:
        at.backend.problems["1"] = RuntimeError("private")
        with structlog.testing.capture_logs():
            at.outbox.tell(online("1"))
            at.outbox.tell(online("2"))
            await at.pass_time(KEEP_SECONDS)
        at.outbox.tell(online("3"))
        await at.clock.run()

        assert at.backend.told("2") == at.backend.told("3") == [USER_ONLINE]
        assert at.counts.dropped == {"expired": 1}


async def test_closing_waits_for_what_is_told_in_time() -> None:
    async with running() as at:
        at.backend.problems["1"] = DOWN
        at.outbox.tell(online("1"))
        await at.clock.run()
        close = asyncio.create_task(at.outbox.close(5))
        await at.clock.run()
        at.outbox.tell(online("2"))
        assert not close.done()
        at.backend.problems.clear()
        await at.pass_time(1)

        assert close.done()
        assert at.backend.told("2") == []
        assert at.counts.dropped == {"closing": 1}


@pytest.mark.parametrize("problems", [{}, {"1": DOWN}])
async def test_closing_drops_and_counts_what_is_not(problems: dict[str | None, Exception]) -> None:
    async with running(max_in_flight=1) as at:
        at.backend.gate.clear()
        at.backend.problems = problems
        for user in ("1", "1", "2"):
            at.outbox.tell(online(user))
        await at.clock.run()
        close = asyncio.create_task(at.outbox.close(5))
        await at.pass_time(5)
        assert close.done()
        assert at.counts.dropped == {"closing": 3}
        at.backend.gate.set()
        await at.pass_time(KEEP_SECONDS)

        assert at.counts.dropped == {"closing": 3}
        assert at.counts.waiting == 0
        assert len(at.backend.tries) == 1


async def test_what_was_dropped_in_a_pause_is_not_tried_again() -> None:
    async with running() as at:
        at.backend.problems["1"] = DOWN
        at.outbox.tell(online("1"))
        await at.clock.run()
        await at.outbox.close(0)
        await at.pass_time(KEEP_SECONDS)

        assert at.counts.dropped == {"closing": 1}
        assert len(at.backend.tries) == 1


async def test_an_empty_outbox_closes_at_once() -> None:
    async with running() as at:
        await at.outbox.close(5)

        assert at.counts.dropped == {}


async def test_drops_are_logged_once_in_a_while() -> None:
    async with running() as at:
        await at.outbox.close(0)
        with structlog.testing.capture_logs() as logs:
            for _ in range(100):
                at.outbox.tell(online("private"))

    assert [entry["event"] for entry in logs] == ["events dropped"]
    assert "private" not in str(logs)


async def test_a_real_backend_hears_until_it_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FIRST_PAUSE_SECONDS", 0)
    statuses = iter([500, 404, 204])

    async def script(request: Request) -> None:
        await request.answer(next(statuses))

    async with serving(script) as backend:
        client = Upstream(Settings(backend.url), replica="a", max_user_bytes=255, metrics=Counted())
        async with closing(client):
            tell: Tell = client.tell
            metrics = Metrics()
            outbox = Outbox(tell, metrics, max_in_flight=1)
            task = asyncio.create_task(outbox.run())
            outbox.tell(online("1"))
            assert "gateway_upstream_events_waiting 1.0" in metrics.exposition()[0].decode()
            await outbox.close(30)
            task.cancel()
            outbox.tell(online("2"))

    assert len(backend.requests) == 3
    assert len({request.headers["webhook-id"] for request in backend.requests}) == 1
    text = metrics.exposition()[0].decode()
    assert "gateway_upstream_events_waiting 0.0" in text
    assert 'gateway_upstream_events_dropped_total{reason="closing"} 1.0' in text
