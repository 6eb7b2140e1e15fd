"""When users were last seen: what is written, what is tried again, and how little of it is kept."""

import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.errors import BusUnavailable
from gateway.sessions import last_seen
from gateway.sessions.last_seen import (
    LONGEST_PAUSE_TURNS,
    LOOK_TURNS,
    PARTS,
    TURN_SECONDS,
    WRITES_AT_ONCE,
    WRITES_IN_A_ROW,
    LastSeen,
)
from tests.support.clock import Clock

BUCKET = "g_last_seen"


class Store:
    """Remembers what was put; one that is down takes nothing."""

    def __init__(self, *, down: bool = False) -> None:
        self.down = down
        self.bad: dict[str, Exception] = {}
        self.tries: list[str] = []
        self.values: dict[str, bytes] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None:
        assert bucket == BUCKET
        assert keep_seconds
        self.tries.append(key)
        await self.gate.wait()
        if self.down:
            raise BusUnavailable("down")
        if key in self.bad:
            raise self.bad[key]
        self.values[key] = value

    async def get(self, bucket: str, key: str) -> bytes | None:
        assert bucket == BUCKET
        return self.values.get(key)


class Times(LastSeen):
    """With a store, and turns that take no time."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, BUCKET, lambda: 7.0)
        self.store = store
        self.clock = Clock()

    async def turns(self, count: int, *present: str) -> None:
        for _ in range(count):
            turn = asyncio.create_task(self.next_turn(lambda: present))
            await self.clock.run()
            await self.clock.run(TURN_SECONDS)
            await turn


@pytest.mark.parametrize("down", [False, True])
async def test_who_leaves_writes_all_that_is_new_or_gives_up_at_once(down: bool) -> None:
    store = Store(down=down)
    times = LastSeen(store, BUCKET, lambda: 7.0)
    users = 2 * WRITES_IN_A_ROW + 1
    for number in range(users):
        times.seen(f"user-{number}", 7.0)
    await times.finish()

    assert len(store.tries) == len(set(store.tries)) == (WRITES_AT_ONCE if down else users)
    assert set(store.values.values()) == (set() if down else {b"7.0"})


async def test_who_could_not_be_written_is_written_when_that_is_possible_again() -> None:
    times = Times(Store(down=True))
    users = [f"user-{number}" for number in range(50)]
    for user in users:
        times.seen(user, 7.0)
    await times.turns(3)
    assert not times.store.values
    times.store.down = False
    await times.turns(3)

    assert len(times.store.values) == 50
    assert [await times.kept(user) for user in users] == [7.0] * 50


async def test_a_store_that_is_down_is_asked_more_and_more_seldom() -> None:
    times = Times(Store(down=True))
    for number in range(50):
        times.seen(f"user-{number}", 7.0)
    await times.turns(600)
    tries = len(times.store.tries) / WRITES_AT_ONCE

    # 1 + 2 + 4 + ... turns apart, then 60
    assert 7 + 600 / (LONGEST_PAUSE_TURNS + 1) - 3 < tries < 7 + 600 / LONGEST_PAUSE_TURNS
    times.store.down = False
    await times.turns(LONGEST_PAUSE_TURNS + 1)
    assert len(times.store.values) == 50
    times.seen("late", 7.0)
    await times.turns(1)
    assert await times.kept("late") == 7.0


async def test_newcomers_take_the_places_of_those_who_wait_and_raise_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(last_seen, "MOST_USERS", 100)
    times = Times(Store())
    times.store.gate.clear()
    for number in range(100):
        times.seen(f"old-{number}", 7.0)
    writing = asyncio.create_task(times.write())
    for number in range(100):  # before a single old one was written
        times.seen(f"new-{number}", 7.0)
    times.store.down = True
    times.store.gate.set()
    await writing
    times.store.down = False
    await times.turns(3)

    assert len(times._seen) == 100
    assert len(times._unwritten) == 0
    assert [await times.kept(f"new-{number}") for number in range(100)] == [7.0] * 100
    assert times.known("old-0") == 0.0


@pytest.mark.parametrize("problem", [BusUnavailable("bad key"), RuntimeError()])
async def test_one_user_who_cannot_be_written_keeps_back_nobody(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    errors = []
    monkeypatch.setattr(last_seen, "background_error", lambda *each: errors.append(each))
    times = Times(Store())
    times.store.bad[last_seen._key("bad")] = problem
    times.seen("bad", 7.0)
    for number in range(3 * WRITES_AT_ONCE):
        times.seen(f"user-{number}", 7.0)
    await times.turns(1)

    assert len(times.store.values) == 3 * WRITES_AT_ONCE
    assert bool(errors) is isinstance(problem, RuntimeError)
    times.store.bad.clear()
    await times.turns(3)
    assert await times.kept("bad") == 7.0


async def test_all_who_stay_are_written_once_an_hour_a_few_at_a_time() -> None:
    times = Times(Store())
    users = [f"user-{number}" for number in range(2000)]
    most = written = 0
    for _ in range(PARTS):
        await times.turns(LOOK_TURNS, *users)
        most = max(most, len(times.store.tries) - written)
        written = len(times.store.tries)

    assert PARTS * LOOK_TURNS * TURN_SECONDS == 3600
    assert sorted(times.store.tries) == sorted(map(last_seen._key, users))
    assert most < len(users) / PARTS * 4  # by chance alone hardly three times


async def test_a_store_that_comes_and_goes_does_not_fill_the_log() -> None:
    times = Times(Store())
    with capture_logs() as logs:
        for turn in range(100):
            times.store.down = turn % 2 == 0
            times.seen("42", 7.0)
            await times.turns(1)

    assert [line["on_the_bus"] for line in logs] == [False]
