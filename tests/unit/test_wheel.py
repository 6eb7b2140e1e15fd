"""The timer wheel."""

import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wheel import Timed, TimerWheel


class Entry(Timed):
    """Remembers when it was looked at; asks to be looked at again a given number of times."""

    def __init__(self, every: float = 0.0, times: int = 0) -> None:
        super().__init__()
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


def test_the_end_of_a_stall_is_told_from_a_late_turn() -> None:
    wheel = TimerWheel(100.0)
    for now in (101.0, 103.9, 104.9):
        wheel.turn(now)
        assert wheel.stalled_until == 100.0

    wheel.turn(114.0)
    wheel.turn(115.0)

    assert wheel.stalled_until == 114.0


def test_a_stalled_loop_misses_nobody() -> None:
    wheel = TimerWheel(0.0)
    entries = [Entry() for _ in range(100)]
    for index, entry in enumerate(entries):
        wheel.add(entry, float(index))
    wheel.turn(1000.0)

    assert all(entry.looks == [1000.0] for entry in entries)


def test_an_entry_added_again_comes_at_its_new_time_alone() -> None:
    wheel, entry = TimerWheel(0.0), Entry()
    for when in (5.0, 30.0, 10.0):
        wheel.add(entry, when)
    for now in range(60):
        wheel.turn(float(now))

    assert entry.looks == [11.0]


def test_an_entry_may_add_itself_while_it_is_looked_at() -> None:
    wheel = TimerWheel(0.0)

    class Closing(Entry):
        def due(self, now: float) -> float | None:
            if not self.looks:
                wheel.add(self, now + 5.0)
            return super().due(now)

    entry = Closing()
    wheel.add(entry, 3.0)
    for now in range(60):
        wheel.turn(float(now))

    assert entry.looks == [4.0, 10.0]


def test_one_that_is_gone_is_not_looked_at_nor_kept() -> None:
    wheel = TimerWheel(0.0)
    entries = [Entry() for _ in range(6)]
    for entry in entries:
        wheel.add(entry, 5.0)
    for gone in (0, 2, 3, 5):  # at either end of their slot, and side by side
        wheel.discard(entries[gone])
        wheel.discard(entries[gone])
    left = [entries[1], entries[4]]
    lost = [weakref.ref(entry) for entry in entries if entry not in left]
    del entries, entry
    assert [ref() for ref in lost] == [None] * 4

    wheel.turn(10.0)
    assert [entry.looks for entry in left] == [[10.0]] * 2


def test_an_entry_may_discard_others_of_its_slot() -> None:
    wheel = TimerWheel(0.0)
    entries: list[Entry] = []

    class First(Entry):
        def due(self, now: float) -> float | None:
            for entry in entries:
                wheel.discard(entry)
            return super().due(now)

    entries += [First() for _ in range(5)]
    for entry in entries:
        wheel.add(entry, 5.0)
    wheel.turn(10.0)

    assert sum(len(entry.looks) for entry in entries) == 1


def test_an_error_of_one_entry_costs_no_other_its_look() -> None:
    wheel = TimerWheel(0.0)

    class Faulty(Entry):
        def due(self, now: float) -> float | None:
            super().due(now)
            raise ZeroDivisionError

    entries = [Entry(), Faulty(), Entry(), Faulty(), Entry()]
    for entry in entries:
        wheel.add(entry, 5.0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            wheel.turn(10.0)
    wheel.turn(10.0)

    assert [entry.looks for entry in entries] == [[10.0]] * 5


@given(st.lists(st.tuples(st.integers(0, 4), st.none() | st.floats(0, 50)), max_size=40))
def test_each_is_looked_at_as_its_last_word_wants(words: list[tuple[int, float | None]]) -> None:
    """No earlier than asked, at most a second late, and once."""
    wheel = TimerWheel(0.0)
    entries = [Entry() for _ in range(5)]
    for index, when in words:
        if when is None:
            wheel.discard(entries[index])
        else:
            wheel.add(entries[index], when)
    for now in range(53):
        wheel.turn(float(now))

    last = dict(words)
    for index, entry in enumerate(entries):
        when = last.get(index)
        assert len(entry.looks) == (when is not None)
        assert when is None or when <= entry.looks[0] <= when + 1
