"""Waiting for something to become true: never a fixed sleep."""

import asyncio
import time
from collections.abc import Awaitable, Callable

INTERVAL_SECONDS = 0.02

WITHIN_SECONDS = 30.0
"""Far above what anything takes that a test waits for, so that no busy machine fails one."""


async def eventually(
    check: Callable[[], bool] | Callable[[], Awaitable[bool]],
    within: float = WITHIN_SECONDS,
    what: str = "",
) -> None:
    """Return once ``check`` holds.

    Raises:
        AssertionError: It does not within so many seconds, a bound far above what is expected.
    """
    deadline = time.monotonic() + within
    while True:
        result = check()
        if isinstance(result, Awaitable):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, f"not within {within} s: {what or check}"
        await asyncio.sleep(INTERVAL_SECONDS)
