"""Finishes what is under way when a replica shuts down: sockets, callbacks and the outbox, side by side."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

LAST_SECONDS: Final = 3.0
"""
How long all of it takes at most.

A slow backend must not use up the platform's grace period: a replica that is killed says no farewell, and
the users it has handed over count as lost.
"""

_log = structlog.get_logger(__name__)


async def finish(
    *,
    sockets: Awaitable[None],
    finish_callbacks: Callable[[float], Awaitable[int]],
    hand_over: Awaitable[None],
    close_outbox: Callable[[float], Awaitable[None]],
    pushes_dropped: Callable[[int], None],
) -> None:
    """Wait for all of it, at most :data:`LAST_SECONDS`; the rest is given up.

    Args:
        sockets: Ends them.
        finish_callbacks: Waits at most so many seconds; returns how many pushes are lost.
        hand_over: Hands the users who were here to other replicas; the outbox may get events of it.
        close_outbox: Takes no more, and waits at most so many seconds for the rest to be sent.
        pushes_dropped: Counts the pushes that were given up.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + LAST_SECONDS
    ended = asyncio.ensure_future(sockets)

    async def tell() -> None:
        await hand_over
        # one that was being cut off while all were closed has its end still to be told
        await asyncio.wait((ended,))
        await close_outbox(max(0.0, ends_at - loop.time()))

    async def work_off() -> None:
        # what clients said before they were closed still goes to the backend
        given_up = await finish_callbacks(LAST_SECONDS)
        if given_up:
            pushes_dropped(given_up)
            _log.warning("pushes dropped", pushes=given_up, reason="closing")

    await asyncio.gather(ended, work_off(), tell())
