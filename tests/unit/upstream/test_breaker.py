"""The breaker as a table of what happens and where it leads."""

from collections.abc import Callable

import pytest

from gateway.upstream.breaker import (
    FAILURES,
    LONGEST_SECONDS,
    PROVEN_SECONDS,
    Breaker,
    BreakerState,
)


class Clock:
    """Seconds a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fail(breaker: Breaker, times: int = 1) -> list[bool]:
    """So many calls in a row that fail; what each said."""
    return [breaker.failed(ticket(breaker)) for _ in range(times)]


def state(breaker: Breaker) -> BreakerState:
    """Where it stands now; read anew each time, as type checkers do not see it change."""
    return breaker.state


def ticket(breaker: Breaker) -> int:
    """A call that is let through."""
    admitted = breaker.admit()
    assert admitted is not None
    return admitted


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock)


@pytest.fixture
def opened(breaker: Breaker) -> Breaker:
    fail(breaker, FAILURES)
    return breaker


def test_it_opens_after_five_failures_in_a_row(breaker: Breaker) -> None:
    assert fail(breaker, FAILURES) == [False] * (FAILURES - 1) + [True]

    assert state(breaker) is BreakerState.OPEN
    assert breaker.refuses()
    assert breaker.admit() is None


def test_a_success_between_begins_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    assert breaker.succeeded(ticket(breaker)) is False
    fail(breaker, FAILURES - 1)

    assert state(breaker) is BreakerState.CLOSED


def test_one_client_cannot_open_it_while_it_works_for_others(breaker: Breaker) -> None:
    for user in ("ann", "mallory"):
        breaker.succeeded(ticket(breaker), user)
    for _ in range(3 * FAILURES):
        assert breaker.failed(ticket(breaker), "mallory") is False
    breaker.succeeded(ticket(breaker), "mallory")
    for _ in range(3 * FAILURES):
        assert breaker.failed(ticket(breaker), "mallory") is False

    for user in "abcde":
        breaker.failed(ticket(breaker), user)
    assert state(breaker) is BreakerState.OPEN


def test_if_it_works_for_nobody_else_one_client_shows_that_it_fails(
    breaker: Breaker, clock: Clock
) -> None:
    breaker.succeeded(ticket(breaker), "ann")
    clock.now += PROVEN_SECONDS
    for _ in range(FAILURES):
        breaker.failed(ticket(breaker), "mallory")

    assert state(breaker) is BreakerState.OPEN


def test_what_no_client_can_cause_counts_each_time(breaker: Breaker) -> None:
    breaker.succeeded(ticket(breaker), "ann")
    breaker.failed(ticket(breaker), "mallory")
    fail(breaker, FAILURES - 2)
    breaker.failed(ticket(breaker), "mallory")

    assert state(breaker) is BreakerState.OPEN


def test_a_probe_that_fails_counts_whoever_it_is_for(opened: Breaker, clock: Clock) -> None:
    clock.now += 1
    assert opened.failed(ticket(opened), "mallory") is True
    clock.now += 2
    assert opened.failed(ticket(opened), "mallory") is True


def test_what_is_given_up_counts_for_nothing(breaker: Breaker) -> None:
    fail(breaker, FAILURES - 1)
    breaker.given_up(ticket(breaker))
    assert state(breaker) is BreakerState.CLOSED
    fail(breaker)

    assert state(breaker) is BreakerState.OPEN


def test_it_is_open_for_a_second_and_then_lets_one_through(opened: Breaker, clock: Clock) -> None:
    clock.now += 0.999
    assert opened.admit() is None
    clock.now += 0.001

    assert not opened.refuses()
    assert opened.admit() is not None
    assert state(opened) is BreakerState.HALF_OPEN
    assert opened.refuses()
    assert opened.admit() is None


def test_the_probe_closes_it(opened: Breaker, clock: Clock) -> None:
    clock.now += 1

    assert opened.succeeded(ticket(opened)) is True

    assert state(opened) is BreakerState.CLOSED
    assert fail(opened, FAILURES)[-1] is True
    assert opened.seconds == 1.0


def test_each_probe_that_fails_doubles_the_pause_up_to_a_bound(
    opened: Breaker, clock: Clock
) -> None:
    pauses = [opened.seconds]
    for _ in range(7):
        clock.now += opened.seconds
        assert fail(opened) == [True]
        assert opened.admit() is None
        pauses.append(opened.seconds)

    assert pauses == [1, 2, 4, 8, 16, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]


def test_a_probe_that_is_given_up_leaves_its_place_to_the_next(
    opened: Breaker, clock: Clock
) -> None:
    clock.now += 1
    opened.given_up(ticket(opened))

    assert opened.succeeded(ticket(opened)) is True


@pytest.mark.parametrize("report", [Breaker.succeeded, Breaker.failed, Breaker.given_up])
def test_a_call_from_before_it_opened_changes_nothing(
    breaker: Breaker, clock: Clock, report: Callable[[Breaker, int], object]
) -> None:
    early = [ticket(breaker) for _ in range(3)]
    fail(breaker, FAILURES)
    assert not report(breaker, early[0])
    assert (breaker.state, breaker.seconds) == (BreakerState.OPEN, 1.0)
    clock.now += 1
    probe = ticket(breaker)
    assert not report(breaker, early[1])
    assert state(breaker) is BreakerState.HALF_OPEN
    breaker.succeeded(probe)
    assert not report(breaker, early[2])

    assert state(breaker) is BreakerState.CLOSED
