"""The last seconds of a replica, when its clients are closed: what takes time goes on side by side."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import structlog

LAST_SECONDS: Final = 3.0
"""
How long all of it takes at most.

A slow backend must not use up the platform's grace period: a replica that is killed says no farewell, and
the users it has handed over count as lost.
"""

_log = structlog.get_logger(__name__)


class Callbacks(Protocol):
    """What clients said that is not handed over yet."""

    async def finish(self, seconds: float) -> int:
        """Wait until nothing is under way, but not longer than this; returns how many pushes are lost."""


class Outbox(Protocol):
    """What the backend is still to be told."""

    async def close(self, seconds: float) -> None:
        """Take no more, and wait until the rest is told, but not longer than this."""


async def finish(
    *,
    sockets: Awaitable[None],
    callbacks: Callbacks,
    hand_over: Awaitable[None],
    outbox: Outbox,
    pushes_dropped: Callable[[int], None],
) -> None:
    """Have done with what clients said and what the backend is to be told of them; give up the rest.

    Args:
        sockets: Ends them.
        hand_over: Has others look after the users who were here; the backend may be told of some then.
        pushes_dropped: Counts the pushes that were given up.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + LAST_SECONDS
    ended = asyncio.ensure_future(sockets)

    async def tell() -> None:
        await hand_over
        # one that was being cut off while all were closed has its end still to be told
        await asyncio.wait((ended,))
        await outbox.close(max(0.0, ends_at - loop.time()))

    async def work_off() -> None:
        # what clients said before they were closed still goes to the backend
        given_up = await callbacks.finish(LAST_SECONDS)
        if given_up:
            pushes_dropped(given_up)
            _log.warning("pushes dropped", pushes=given_up, reason="closing")

    await asyncio.gather(ended, work_off(), tell())
