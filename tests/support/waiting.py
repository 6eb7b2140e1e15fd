"""Waiting for something to become true: never a fixed sleep."""

import asyncio
import time
from collections.abc import Awaitable, Callable

INTERVAL_SECONDS = 0.02


async def eventually(
    check: Callable[[], bool] | Callable[[], Awaitable[bool]], within: float = 10.0, what: str = ""
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
