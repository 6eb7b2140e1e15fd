"""Devices that gave way: for how long, and how many are remembered."""

from itertools import pairwise

import pytest

from gateway.sessions import displaced
from gateway.sessions.displaced import FIRST_SECONDS, LONGEST_SECONDS, Displaced


class Watch:
    """Time that passes when it is told to."""

    now = 0.0


def lasts(clock: Watch, known: Displaced) -> int:
    """For how many seconds a device that gives way now pushes nobody out."""
    known.add("42", "phone")
    seconds = 0
    while known.lately("42", "phone"):
        clock.now += 1
        seconds += 1
    return seconds


def test_each_time_soon_after_the_last_is_twice_as_long() -> None:
    clock = Watch()
    known = Displaced(lambda: clock.now)
    times = [lasts(clock, known) for _ in range(8)]

    assert times[0] == FIRST_SECONDS
    assert times[-1] == LONGEST_SECONDS
    assert all(after == min(2 * before, LONGEST_SECONDS) for before, after in pairwise(times))


def test_after_a_while_it_begins_anew() -> None:
    clock = Watch()
    known = Displaced(lambda: clock.now)
    first = lasts(clock, known)
    clock.now += 3 * first

    assert lasts(clock, known) == first


def test_it_is_of_one_device_of_one_user() -> None:
    known = Displaced(lambda: 0.0)
    known.add("42", "phone")

    assert known.lately("42", "phone")
    assert not known.lately("42", "laptop")
    assert not known.lately("43", "phone")


def test_what_is_remembered_is_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displaced, "MOST", 3)
    clock = Watch()
    known = Displaced(lambda: clock.now)
    for user in range(5):
        known.add(str(user), "phone")
    assert [known.lately(str(user), "phone") for user in range(5)] == [False] * 2 + [True] * 3
    clock.now += 1000
    known.add("last", "phone")

    assert len(known._known) == 1
