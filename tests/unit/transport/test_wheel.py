"""The timer wheel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.wheel import TimerWheel


class Entry:
    """Remembers when it was looked at; asks to be looked at again a given number of times."""

    def __init__(self, every: float = 0.0, times: int = 0) -> None:
        self.looks: list[float] = []
        self.every = every
        self.times = times

    def due(self, now: float) -> float | None:
        self.looks.append(now)
        self.times -= 1
        return now + self.every if self.times > 0 else None


def test_an_entry_is_looked_at_after_its_time_and_within_a_second() -> None:
    wheel, entry = TimerWheel(100.0), Entry()
    wheel.add(entry, 103.4)
    for now in (101.0, 102.0, 103.0, 103.9):
        wheel.turn(now)
        assert entry.looks == []

    wheel.turn(104.0)
    wheel.turn(200.0)

    assert entry.looks == [104.0]


def test_an_entry_comes_again_as_it_asks() -> None:
    wheel, entry = TimerWheel(0.0), Entry(every=10.0, times=3)
    wheel.add(entry, 5.0)
    for now in range(60):
        wheel.turn(float(now))

    assert entry.looks == [6.0, 17.0, 28.0]


def test_a_time_that_has_passed_comes_with_the_next_turn() -> None:
    wheel, entry = TimerWheel(50.0), Entry()
    wheel.turn(50.0)
    wheel.add(entry, 3.0)
    wheel.turn(51.0)

    assert entry.looks == [51.0]


def test_a_stalled_loop_misses_nobody() -> None:
    wheel = TimerWheel(0.0)
    entries = [Entry() for _ in range(100)]
    for index, entry in enumerate(entries):
        wheel.add(entry, float(index))
    wheel.turn(1000.0)

    assert all(entry.looks == [1000.0] for entry in entries)


def test_an_entry_that_raises_is_looked_at_no_more_and_the_others_a_turn_later() -> None:
    class Broken(Entry):
        """Raises."""

        def due(self, now: float) -> float | None:
            super().due(now)
            raise RuntimeError

    wheel = TimerWheel(0.0)
    before, broken, behind = Entry(), Broken(), Entry()
    for entry in (before, broken, behind):
        wheel.add(entry, 1.0)

    with pytest.raises(RuntimeError):
        wheel.turn(5.0)
    wheel.turn(6.0)
    wheel.turn(7.0)

    assert (before.looks, broken.looks, behind.looks) == ([5.0], [5.0], [6.0])


@given(st.lists(st.floats(0, 50), max_size=20))
def test_nobody_is_looked_at_too_early_or_more_than_a_second_late(times: list[float]) -> None:
    wheel = TimerWheel(0.0)
    entries = [(when, Entry()) for when in times]
    for when, entry in entries:
        wheel.add(entry, when)
    for now in range(53):
        wheel.turn(float(now))

    assert all(when <= entry.looks[0] <= when + 1 for when, entry in entries)
