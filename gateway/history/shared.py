"""One question for many who ask."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

Answer = TypeVar("Answer")

AT_ONCE: Final = 4
"""Questions that nobody waits for after a pause: a join has up to three."""


class Shared(Generic[Answer]):
    """Asks on behalf of all who came while the last question was under way.

    Nobody gets the answer to a question that was asked before they came: it would not know what they know
    to have happened.

    Args:
        ask: Asks once.
        apart_seconds: Time between two questions that a crowd has asked. One who comes alone does not wait,
            though she asks a few times: as many as :data:`AT_ONCE` may follow each other directly.
    """

    def __init__(self, ask: Callable[[], Awaitable[Answer]], *, apart_seconds: float) -> None:
        self._ask = ask
        self._apart_seconds = apart_seconds
        self._asking: asyncio.Task[Answer] | None = None
        self._next: asyncio.Task[Answer] | None = None
        self._due = 0.0  # when the next one would be asked at an even pace, on the loop's clock

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
        ahead = AT_ONCE * self._apart_seconds
        if (pause := self._due - ahead - clock()) > 0:
            await asyncio.sleep(pause)
        self._due = max(self._due, clock()) + self._apart_seconds
        self._asking, self._next = self._next, None
        return await self._ask()
