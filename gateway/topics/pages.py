"""Finds one page of many names, some in each turn of the event loop, and puts those of replicas together."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

PER_TURN: Final = 1000
"""Topics, members or entries looked at in one turn of the event loop; there may be a hundred thousand."""


async def in_turns(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """The items, some in each turn of the event loop."""
    for start in range(0, len(items), PER_TURN):
        if start:
            await asyncio.sleep(0)
        yield items[start : start + PER_TURN]


async def first_names(
    items: Sequence[T],
    name_of: Callable[[T], str],
    after: str | None,
    limit: int,
    prefix: str = "",
) -> tuple[list[str], bool]:
    """The first names behind one, in order of their code points, and whether there are more.

    Args:
        items: What has these names, in any order; several may have the same.
    """
    first: list[str] = []
    bound: str | None = None
    async for some in in_turns(items):
        fresh = {
            name
            for name in map(name_of, some)
            if name.startswith(prefix)
            and (after is None or name > after)
            and (bound is None or name < bound)
        }
        if fresh:
            first = sorted(fresh.union(first))[: limit + 1]
            bound = first[limit] if len(first) > limit else None
    return first[:limit], len(first) > limit


def joined(pages: Sequence[tuple[Collection[str], bool]], limit: int) -> tuple[list[str], bool]:
    """The page of all, and whether there are more, from the page of each.

    Nothing behind a page that others follow is shown: whose page that is may have a name before it.
    A page that is empty and yet says that others follow is none of ours, and says nothing.
    """
    ends = [max(names) for names, more in pages if more and names]
    names = sorted(set[str]().union(*(names for names, _ in pages)))
    whole = [name for name in names if not ends or name <= min(ends)]
    return whole[:limit], bool(ends) or len(whole) > limit
