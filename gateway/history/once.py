"""One reading for many who want the same at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Once(Generic[Key, Value]):
    """Readings under way, by what is read."""

    def __init__(self) -> None:
        self._under_way: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key, read: Callable[[], Awaitable[Value]]) -> Value:
        """What ``read`` returns or raises; of those who come while it is under way, only the first reads."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.ensure_future(read())
            task.add_done_callback(lambda done: self._done(key, done))
        # shielded, because others wait for it too
        return await asyncio.shield(task)

    def _done(self, key: Key, task: "asyncio.Task[Value]") -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # if all who waited were cancelled, nobody else would look
