"""The message history where no rule keeps any: it stores nothing."""

from collections.abc import Callable
from typing import NoReturn

from gateway.errors import HistoryUnavailable


class NoHistory:
    """A :class:`~gateway.history.base.MessageHistory`; to ask it for messages is the caller's mistake."""

    problem = None
    epoch = ""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def listen(self, listener: Callable[[], None]) -> None: ...

    async def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise HistoryUnavailable("unavailable", "no rule keeps a history")

    append = after = newest = tip = time_at = last_offsets = erase = _refuse
