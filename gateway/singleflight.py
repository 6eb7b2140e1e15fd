"""Coalesces concurrent calls: many who ask the same thing at once cost one call ("single flight").

A call runs in a task of its own until it ends, whoever of those who wait for it is cancelled. What it
returns or raises goes to all who still wait; if nobody does, an error is dropped without a warning.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class CallCancelled(Exception):
    """The call was cancelled; not a ``CancelledError``, as those who waited for it were not."""


class SingleFlight(Generic[Key, Value]):
    """Calls under way, at most one at a time for each key.

    A key is free as soon as its call has ended, before those who waited go on. Where there is only one
    thing to ask, the key may be ``None``.

    Args:
        pace: Awaited before each call, to keep calls apart; whoever asks meanwhile shares that call.
    """

    def __init__(self, *, pace: Callable[[], Awaitable[None]] | None = None) -> None:
        self._pace = pace
        self._running: dict[Key, asyncio.Task[Value]] = {}
        self._next: dict[Key, asyncio.Task[Value]] = {}  # whose calls have not begun

    def __contains__(self, key: Key) -> bool:
        """Whether a call is under way, or about to begin."""
        return key in self._running or key in self._next

    async def share(self, key: Key, call: Callable[[], Awaitable[Value]]) -> Value:
        """What the call under way returns or raises; only where there is none, this one is made."""
        task = self._running.get(key) or self._next.get(key) or self._begin(key, call)
        return await _outcome(task)

    async def fresh(self, key: Key, call: Callable[[], Awaitable[Value]]) -> Value:
        """What a call returns or raises that begins after this was asked for.

        One that is under way is waited for first, and all who come meanwhile share the next.
        """
        return await _outcome(self._next.get(key) or self._begin(key, call))

    def cancel(self) -> None:
        """End all calls, for good, at shutdown: whoever still waits gets :class:`CallCancelled`."""
        for task in (*self._next.values(), *self._running.values()):
            task.cancel()

    def _begin(self, key: Key, call: Callable[[], Awaitable[Value]]) -> "asyncio.Task[Value]":
        task = asyncio.create_task(self._run(key, call))
        # if all who waited were cancelled, nobody else would look at what became of it
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._next[key] = task
        return task

    async def _run(self, key: Key, call: Callable[[], Awaitable[Value]]) -> Value:
        task = self._next[key]
        try:
            if (running := self._running.get(key)) is not None:
                await asyncio.wait((running,))
            if self._pace is not None:
                await self._pace()
            self._running[key] = task
        finally:
            del self._next[key]
        try:
            return await call()
        finally:
            del self._running[key]


async def _outcome(task: "asyncio.Task[Value]") -> Value:
    await asyncio.wait((task,))  # unlike awaiting the task, being cancelled here does not cancel it
    if task.cancelled():
        raise CallCancelled
    return task.result()


class CallSpacing:
    """Keeps calls apart: a few follow each other directly, a crowd of them at an even pace.

    Args:
        seconds: Time between two calls, on average.
        at_once: How many may follow the first directly, if none were made for a while.
    """

    def __init__(self, seconds: float, *, at_once: int) -> None:
        self._seconds = seconds
        self._ahead = seconds * at_once
        self._due = 0.0  # of the next call at an even pace, on the event loop's clock

    async def wait(self) -> None:
        """Return when the next call may be made."""
        clock = asyncio.get_running_loop().time
        if (pause := self._due - self._ahead - clock()) > 0:
            await asyncio.sleep(pause)
        self._due = max(self._due, clock()) + self._seconds
