"""Counts the different users of several replicas from a bounded sample of each.

A sketch has the lowest digests of a replica's users, at most :data:`KEPT` ("k minimum values": Bar-Yossef
and others, Counting Distinct Elements in a Data Stream, 2002). As long as no replica has so many users, the
count is exact. Above it is an estimate, off by about one in the square root of ``KEPT``, 1.1 %.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from heapq import merge
from itertools import groupby, islice
from typing import Final

from gateway.topics.pages import in_turns

KEPT: Final = 8192

_DIGESTS: Final = 1 << 64


async def sketch(users: Iterable[str]) -> tuple[int, ...]:
    """The lowest digests of some users, each of whom is named once."""
    lowest: set[int] = set()
    bound = _DIGESTS
    async for some in in_turns(list(users)):
        lowest.update(found for user in some if (found := _digest(user)) < bound)
        if len(lowest) > 2 * KEPT:
            lowest = set(sorted(lowest)[:KEPT])
            bound = max(lowest)
    return tuple(sorted(lowest)[:KEPT])


def count(sketches: Sequence[tuple[int, ...]]) -> int:
    """How many different users some sketches are of."""
    if all(len(each) < KEPT for each in sketches):
        return len(set[int]().union(*sketches))
    lowest = [digest for digest, _ in islice(groupby(merge(*sketches)), KEPT)]
    return round((KEPT - 1) * _DIGESTS / lowest[-1])


def _digest(user: str) -> int:
    return int.from_bytes(blake2b(user.encode(), digest_size=8).digest())
