"""Pages of names: the right ones, none left out between two pages, some looked at in each turn."""

import asyncio
from operator import itemgetter

from hypothesis import given
from hypothesis import strategies as st

from gateway.topics.pages import PER_TURN, first_names, joined

NAMES = st.text("abü\U0001f600", max_size=3)


@given(st.lists(NAMES, max_size=30), st.none() | NAMES, st.integers(1, 10), NAMES)
def test_the_first_names_behind_one(
    names: list[str], after: str | None, limit: int, prefix: str
) -> None:
    page, more = asyncio.run(
        first_names([(name,) for name in names], itemgetter(0), after, limit, prefix)
    )

    behind = [n for n in sorted(set(names)) if after is None or n > after]
    fitting = [name for name in behind if name.startswith(prefix)]
    assert (page, more) == (fitting[:limit], len(fitting) > limit)


@given(st.lists(st.sets(NAMES, max_size=12), max_size=4), st.integers(1, 5))
def test_page_by_page_nothing_is_left_out_or_shown_twice(there: list[set[str]], limit: int) -> None:
    shown: list[str] = []
    after, more = None, True
    while more:
        pages = [asyncio.run(first_names(list(names), str, after, limit)) for names in there]
        names, more = joined(pages, limit)
        assert len(names) == limit or not more
        shown += names
        after = names[-1] if names else None

    assert shown == sorted(set().union(*there))


def test_nothing_is_shown_behind_the_end_of_a_page_that_was_cut_off() -> None:
    assert joined([(["a"], True), (["b", "c"], False)], 10) == (["a"], True)


def test_an_empty_page_that_promises_more_ends_nothing() -> None:
    """No replica sends one; anybody on the bus may, and the next page would begin behind no name."""
    assert joined([([], True)], 10) == ([], False)
    assert joined([([], True), (["a", "b"], True)], 10) == (["a", "b"], True)


async def test_a_hundred_thousand_names_are_looked_at_in_many_turns() -> None:
    names = [f"room:{number}" for number in range(100_000)]
    searching = asyncio.ensure_future(first_names(names, str, None, 100))
    turns = 0
    while not searching.done():
        await asyncio.sleep(0)
        turns += 1

    assert searching.result() == (sorted(names)[:100], True)
    assert turns >= len(names) / PER_TURN
