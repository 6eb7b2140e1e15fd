"""One question for many who ask."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Shared(Generic[Answer]):
    """Asks on behalf of all who came while the last question was under way.

    Nobody gets the answer to a question that was asked before they came: it would not know what they know
    to have happened.

    Args:
        ask: Asks once.
        apart_seconds: Least time between two questions: one who comes alone does not wait, a crowd does, and
            asks less often.
    """

    def __init__(self, ask: Callable[[], Awaitable[Answer]], *, apart_seconds: float) -> None:
        self._ask = ask
        self._apart_seconds = apart_seconds
        self._asking: asyncio.Task[Answer] | None = None
        self._next: asyncio.Task[Answer] | None = None
        self._not_before = 0.0  # on the loop's clock

    async def answer(self) -> Answer:
        """The answer to a question asked from now on, or whatever asking raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._asking))
            # if all who wait are cancelled, nobody else would look at what became of it
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        # shielded, because others wait for it too
        return await asyncio.shield(self._next)

    async def _after(self, asking: "asyncio.Task[Answer] | None") -> Answer:
        if asking is not None:
            await asyncio.wait((asking,))
        clock = asyncio.get_running_loop().time
        if (pause := self._not_before - clock()) > 0:
            await asyncio.sleep(pause)
        self._not_before = clock() + self._apart_seconds
        self._asking, self._next = self._next, None
        return await self._ask()
