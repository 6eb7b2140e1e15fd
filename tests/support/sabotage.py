"""Runs a gateway in which functions raise once it gets SIGUSR1.

``python -m tests.support.sabotage NAMES TIMES serve …``: ``NAMES`` are joined by commas, each either
``module:Class.function``, which then raises :data:`FAULT` so many times (0: for ever), or
``module:NAME=number``, a constant that is another from the start.
"""

import functools
import importlib
import inspect
import math
import signal
import sys
from collections.abc import Callable
from typing import Any

from gateway.cli import main

FAULT = "the fault of this test"

_armed = False


class _Left:
    """How often a function still raises."""

    def __init__(self, times: int) -> None:
        self._times: float = times or math.inf

    def spend(self) -> None:
        if _armed and self._times:
            self._times -= 1
            raise RuntimeError(FAULT)


def _wrapped(right: Callable[..., Any], left: _Left) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(right):

        @functools.wraps(right)
        async def wrong_later(*args: Any, **options: Any) -> Any:
            left.spend()
            return await right(*args, **options)

        return wrong_later

    @functools.wraps(right)
    def wrong(*args: Any, **options: Any) -> Any:
        left.spend()
        return right(*args, **options)

    return wrong


def _prepare(name: str, times: int) -> None:
    where, _, value = name.partition("=")
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, last = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    setattr(owner, last, float(value) if value else _wrapped(getattr(owner, last), _Left(times)))


def _arm(*_: object) -> None:
    global _armed  # noqa: PLW0603 -- one process, one switch
    _armed = True


if __name__ == "__main__":
    names, times = sys.argv.pop(1), int(sys.argv.pop(1))
    for each in names.split(","):
        _prepare(each, times)
    signal.signal(signal.SIGUSR1, _arm)
    main()
