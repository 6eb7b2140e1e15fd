"""Slots are shared: nobody has more than a part of what is free, and who has the fewest is next."""

import asyncio
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamUnavailable
from gateway.upstream.slots import SHARE, WAITING_PER_SLOT, FairShare, Slots


def taken(share: FairShare[int], client: str) -> int:
    """How many slots a client alone gets."""
    return next(n for n in count() if not share.take(client))


@pytest.mark.parametrize(("slots", "alone"), [(1, 1), (2, 1), (6, 2), (100, 20)])
def test_one_client_alone_gets_a_fifth(slots: int, alone: int) -> None:
    assert taken(FairShare(slots, 0), "ann") == alone


def test_many_at_once_get_equal_shares_and_leave_some() -> None:
    share: FairShare[int] = FairShare(100, 0)
    for _ in range(100):
        for number in range(20):
            share.take(f"abuser {number}")

    assert share.free == 16
    assert taken(share, "ann") == 4


def test_many_one_after_another_leave_one_too() -> None:
    share: FairShare[int] = FairShare(100, 0)
    got = [taken(share, f"abuser {number}") for number in range(16)]

    assert got[:3] == [20, 16, 13]
    assert share.free == 1


def test_places_to_wait_are_shared_alike() -> None:
    share: FairShare[int] = FairShare(1, 10)
    share.take("ann")
    assert [share.wait("ann", n) for n in range(3)] == [True, True, False]

    assert share.wait("bob", 10)
    assert share.leave("ann", 0)
    assert share.wait("ann", 6)


def test_who_has_the_fewest_is_next_and_among_equals_who_waits_for_the_longest() -> None:
    share: FairShare[str] = FairShare(9, 100)
    held = ["ann", "ann", "bob", "cyd"]
    assert [share.take(each) for each in [*held, *"12345"]] == [True] * 9
    for name in ("ann 1", "ann 2", "bob 1", "cyd 1", "dan 1", "dan 2"):
        assert share.wait(name[:3], name)
    turns = []
    while (waiter := share.release(held.pop(0))) is not None:
        held.append(waiter[:3])
        turns.append(waiter)

    assert turns == ["dan 1", "ann 1", "bob 1", "cyd 1", "dan 2", "ann 2"]


CLIENTS = st.sampled_from("abcdef")


@given(
    st.integers(1, 12),
    st.integers(0, 20),
    st.lists(st.tuples(st.sampled_from(["come", "come", "leave", "end"]), CLIENTS, st.integers(0))),
)
def test_shares_are_fair_whatever_comes(
    slots: int, places: int, steps: list[tuple[str, str, int]]
) -> None:
    share: FairShare[int] = FairShare(slots, places)
    numbers = count()
    has: Counter[str] = Counter()
    waits: list[tuple[str, int]] = []

    def end(client: str) -> None:
        has[client] -= 1
        waiter = share.release(client)
        if waiter is None:
            return
        served = next(each for each, number in waits if number == waiter)
        assert has[served] == min(has[each] for each, _ in waits)
        assert waiter == next(number for each, number in waits if each == served)
        waits.remove((served, waiter))
        has[served] += 1

    for step, client, choice in steps:
        if step == "come":
            number = next(numbers)
            free = slots - has.total()
            if share.take(client):
                assert SHARE * has[client] < free
                has[client] += 1
            elif share.wait(client, number):
                waits.append((client, number))
            else:
                mine = sum(each == client for each, _ in waits)
                assert SHARE * mine >= places - len(waits)
        elif step == "leave" and waits:
            who, number = waits.pop(choice % len(waits))
            assert share.leave(who, number)
            assert not share.leave(who, number)
        elif step == "end" and has[client]:
            end(client)
        assert share.free == slots - has.total()
        assert all(SHARE * has[each] >= share.free for each, _ in waits), "who waits has to"
    while has.total():
        end(next(has.elements()))

    assert not waits, "nobody is left waiting"
    assert vars(share) == vars(FairShare(slots, places)), "nothing is remembered of anybody"


async def test_who_gives_up_as_the_turn_comes_passes_it_on() -> None:
    under_way: list[int] = []
    slots = Slots(1, under_way.append)
    await slots.take("ann")
    late, next_ = (asyncio.create_task(slots.take(each)) for each in ("bob", "cyd"))
    await asyncio.sleep(0)
    slots.give_back("ann")
    late.cancel()
    await asyncio.wait((late, next_))

    assert late.cancelled()
    assert not next_.cancelled()
    slots.give_back("cyd")
    assert under_way[-1] == 0


async def test_who_gives_up_before_the_turn_comes_is_passed_over() -> None:
    slots = Slots(1, lambda _: None)
    await slots.take("ann")
    late, next_ = (asyncio.create_task(slots.take(each)) for each in ("bob", "cyd"))
    await asyncio.sleep(0)
    late.cancel()
    slots.give_back("ann")
    await asyncio.wait((late, next_))

    assert not next_.cancelled()


async def test_who_would_wait_behind_too_many_of_her_own_is_sent_away() -> None:
    slots = Slots(1, lambda _: None)
    await slots.take("ann")
    most = WAITING_PER_SLOT // (SHARE + 1)
    tasks = [asyncio.create_task(slots.take("ann")) for _ in range(most)]
    await asyncio.sleep(0)
    with pytest.raises(UpstreamUnavailable, match="busy"):
        await slots.take("ann")
    tasks.append(asyncio.create_task(slots.take("bob")))
    await asyncio.sleep(0)
    slots.give_back("ann")
    await tasks[-1]
    slots.give_back("bob")
    await tasks[0]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
