"""The breakers as a table of what happens and where it leads, and what they promise whatever happens."""

from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.breaker import (
    FAILURES,
    LONGEST_SECONDS,
    MOST_CLIENTS,
    PROVEN_SECONDS,
    Breakers,
    BreakerState,
    BreakerTicket,
)

CROWD = [f"user {n}" for n in range(FAILURES)]
"""As many clients as open the breaker for all."""


class Clock:
    """Seconds a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Calls(Breakers):
    """Breakers with calls that end at once."""

    def ticket(self, client: str = "ann") -> BreakerTicket:
        """A call that is let through."""
        admitted = self.admit(client)
        assert admitted is not None
        return admitted

    def fail(self, *clients: str) -> list[bool]:
        """A call of each fails; whether that opened a breaker."""
        return [self.failed(each, self.ticket(each)) is not None for each in clients]

    def succeed(self, client: str = "ann") -> bool:
        """A call succeeds; whether that closed a breaker."""
        return self.succeeded(client, self.ticket(client)) is not None


def state(breakers: Breakers) -> BreakerState:
    """Where that for all stands now; read anew each time, as type checkers do not see it change."""
    return breakers.all.state


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(clock: Clock) -> Calls:
    return Calls(clock)


@pytest.fixture
def opened(calls: Calls, clock: Clock) -> Calls:
    """Open for all."""
    clock.now += PROVEN_SECONDS
    assert calls.fail(*CROWD)[-1]
    assert state(calls) is BreakerState.OPEN
    return calls


@pytest.fixture
def cut_off(calls: Calls) -> Calls:
    """Open for ann."""
    calls.fail(*["ann"] * FAILURES)
    return calls


def test_five_failures_in_a_row_cut_a_client_off_and_no_other(calls: Calls) -> None:
    assert calls.fail(*["ann"] * FAILURES) == [False] * (FAILURES - 1) + [True]

    assert calls.refuses("ann")
    assert calls.admit("ann") is None
    assert not calls.refuses("bob")
    assert calls.admit("bob") is not None


def test_a_success_between_begins_the_count_anew(calls: Calls) -> None:
    calls.fail(*["ann"] * (FAILURES - 1))
    assert calls.succeed() is False
    calls.fail(*["ann"] * (FAILURES - 1))

    assert not calls.refuses("ann")
    assert len(calls.clients) == 1


def test_a_success_of_another_does_not(calls: Calls) -> None:
    calls.fail(*["ann"] * (FAILURES - 1))
    calls.succeed("bob")

    assert calls.fail("ann") == [True]


def test_five_clients_that_fail_in_a_row_show_that_it_is_down(calls: Calls, clock: Clock) -> None:
    clock.now += PROVEN_SECONDS
    assert calls.fail(*CROWD) == [False] * (FAILURES - 1) + [True]

    assert calls.refuses("ann")
    assert calls.admit("ann") is None


def test_a_client_that_is_answered_shows_that_it_is_not(calls: Calls) -> None:
    calls.fail(*CROWD[:-1])
    calls.succeed()
    calls.fail(*CROWD[:-1])

    assert state(calls) is BreakerState.CLOSED


def test_that_holds_for_a_while_however_many_fail(calls: Calls, clock: Clock) -> None:
    calls.succeed()
    calls.fail(*CROWD, "eve")
    clock.now += PROVEN_SECONDS - 0.001
    calls.fail("eve")
    assert state(calls) is BreakerState.CLOSED
    clock.now += 0.001
    calls.fail("eve")

    assert state(calls) is BreakerState.OPEN


def test_what_is_given_up_counts_for_nothing(calls: Calls) -> None:
    calls.fail(*["ann"] * (FAILURES - 1))
    calls.given_up("ann", calls.ticket())
    calls.given_up("bob", calls.ticket("bob"))
    assert not calls.refuses("ann")

    assert calls.fail("ann") == [True]


@pytest.mark.parametrize("which", ["opened", "cut_off"])
def test_it_is_open_for_a_second_and_then_lets_one_through(
    which: str, clock: Clock, request: pytest.FixtureRequest
) -> None:
    calls: Calls = request.getfixturevalue(which)
    clock.now += 0.999
    assert calls.admit("ann") is None
    clock.now += 0.001

    assert not calls.refuses("ann")
    assert calls.admit("ann") is not None
    assert calls.refuses("ann")
    assert calls.admit("ann") is None


def test_the_try_of_a_client_lets_it_in_again(cut_off: Calls, clock: Clock) -> None:
    clock.now += 1

    assert cut_off.succeed() is True

    assert not cut_off.clients
    cut_off.fail(*["ann"] * FAILURES)
    assert cut_off.clients["ann"].seconds == 1


def test_the_try_for_all_lets_all_in_again(opened: Calls, clock: Clock) -> None:
    """Those who were cut off alone may try as well: it may have been the backend."""
    for _ in range(FAILURES + 1):
        clock.now += 2
        opened.fail(CROWD[0])
    clock.now += 2

    assert opened.refuses(CROWD[0])
    assert opened.succeed() is True
    assert state(opened) is BreakerState.CLOSED
    assert opened.fail(*CROWD) == [True] + [False] * (FAILURES - 1)
    assert opened.refuses(CROWD[0]), "it was not"
    assert state(opened) is BreakerState.CLOSED, "it has just shown that it works"


def test_who_has_not_failed_may_try_first(opened: Calls, clock: Clock) -> None:
    """So many whose calls fail for reasons of their own do not take each try."""
    clock.now += 1.999
    assert all(opened.refuses(each) for each in CROWD)
    assert not opened.refuses("ann")
    clock.now += 0.001

    assert not any(opened.refuses(each) for each in CROWD)


def test_each_try_of_a_client_that_fails_doubles_its_pause_up_to_a_bound(
    cut_off: Calls, clock: Clock
) -> None:
    pauses = [cut_off.clients["ann"].seconds]
    for _ in range(7):
        clock.now += pauses[-1]
        assert cut_off.fail("ann") == [True]
        assert cut_off.admit("ann") is None
        pauses.append(cut_off.clients["ann"].seconds)

    assert pauses == [1, 2, 4, 8, 16, LONGEST_SECONDS, LONGEST_SECONDS, LONGEST_SECONDS]


def test_a_backend_that_is_down_is_tried_once_a_second(opened: Calls, clock: Clock) -> None:
    """With whoever comes, and not only with a client that fails for reasons of its own."""
    for second in range(60):
        clock.now += 1
        assert opened.fail(f"new {second}") == [True]
        assert opened.refuses("ann")
        assert opened.all.seconds == 1


@pytest.mark.parametrize("which", ["opened", "cut_off"])
def test_a_try_that_is_given_up_leaves_its_place_to_the_next(
    which: str, clock: Clock, request: pytest.FixtureRequest
) -> None:
    calls: Calls = request.getfixturevalue(which)
    clock.now += 1
    calls.given_up("ann", calls.ticket())

    assert calls.succeed() is True


@pytest.mark.parametrize("report", [Breakers.succeeded, Breakers.failed, Breakers.given_up])
@pytest.mark.parametrize("clients", [CROWD, ["ann"] * FAILURES])
def test_a_call_from_before_it_opened_changes_nothing(
    calls: Calls,
    clock: Clock,
    clients: list[str],
    report: Callable[[Breakers, str, BreakerTicket], object],
) -> None:
    early = [calls.ticket() for _ in range(2)]
    clock.now += PROVEN_SECONDS
    calls.fail(*clients)
    report(calls, "ann", early[0])
    assert calls.refuses("ann")
    clock.now += 2
    probe = calls.ticket()
    report(calls, "ann", early[1])
    assert calls.refuses("ann")

    assert calls.succeeded("ann", probe) is not None


def test_only_the_last_clients_that_failed_are_remembered(calls: Calls) -> None:
    calls.succeed()
    calls.fail("ann", *[f"user {number}" for number in range(MOST_CLIENTS - 1)])
    calls.fail(*["ann"] * (FAILURES - 1), "eve")

    assert len(calls.clients) == MOST_CLIENTS
    assert "user 0" not in calls.clients
    assert calls.refuses("ann")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "fail", "give up", "abuse succeeds", "victim"]),
        st.integers(0, 30),
        st.floats(0, 40),
    ),
    max_size=200,
)


def played(steps: list[tuple[str, int, float]], abusers: int) -> None:
    """Abusers' calls end in any way and order; a victim whose calls succeed is let through each time."""
    clock = Clock()
    calls = Calls(clock)
    under_way: deque[tuple[str, BreakerTicket]] = deque()
    for step, number, seconds in steps:
        if step == "victim":
            # some wait long, if that alone must not matter
            clock.now += seconds if abusers < FAILURES else min(seconds, PROVEN_SECONDS / 2)
            calls.succeed("victim")
        elif step == "begin":
            client = f"abuser {number % abusers}"
            if (ticket := calls.admit(client)) is not None:
                under_way.append((client, ticket))
        elif under_way:
            under_way.rotate(number)
            client, ticket = under_way.popleft()
            if step == "fail":
                calls.failed(client, ticket)
            elif step == "give up":
                calls.given_up(client, ticket)
            else:
                calls.succeeded(client, ticket)


@given(STEPS)
def test_fewer_than_five_clients_cut_off_no_other(steps: list[tuple[str, int, float]]) -> None:
    played(steps, FAILURES - 1)


@given(STEPS)
def test_no_number_of_clients_does_while_others_are_answered(
    steps: list[tuple[str, int, float]],
) -> None:
    played(steps, 30)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 3)), max_size=300))
def test_a_backend_that_is_down_gets_few_calls(steps: list[tuple[int, float]]) -> None:
    """The fewer than five who may use it fail five times each; from then on it is tried once a second."""
    clock = Clock()
    calls = Calls(clock)
    clock.now += PROVEN_SECONDS
    sent = 0
    for number, seconds in steps:
        clock.now += seconds
        client = f"user {number}"
        if (ticket := calls.admit(client)) is not None:
            sent += 1
            calls.failed(client, ticket)

    assert sent <= FAILURES * (FAILURES - 1) + 1 + (FAILURES - 1) * (clock.now - 1000)
