"""Owns the tasks that run as long as the replica: one that dies is logged and ends the process."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog

from gateway.log import QUIET_SECONDS, Throttle

PATIENCE_SECONDS: Final = 5.0
"""
For how long a repeated step may fail before its task counts as dead.

One error may be about one user or one message. A replica in which a step never succeeds is half alive, which
is worse than a restart; and the others should not give it up first, which takes them ten seconds.
"""

PAUSE_SECONDS: Final = 0.25
"""Pause after a step that failed, which may have done so before it waited for anything."""

STOP_SECONDS: Final = 2.0
"""How long tasks have to end that were told to."""

MOST_TEXT: Final = 200
"""Characters that are logged of what a task died of."""

EVENT_LOOP: Final = "event_loop"
"""What errors are counted under that happened in a callback of the event loop, or in a short task."""

_log = structlog.get_logger(__name__)


class Supervisor:
    """The tasks of one replica.

    A task that ends with an error, or that is cancelled by anybody but :meth:`stop`, has died.

    Args:
        count: Told of each error with the name of the task it happened in.
        died: Called when a task has died: the replica must not go on without it.
    """

    def __init__(self, count: Callable[[str], None], died: Callable[[], None]) -> None:
        self._count = count
        self._died = died
        self._throttle = Throttle(QUIET_SECONDS)
        self._started: set[asyncio.Task[None]] = set()
        self._watched: set[asyncio.Task[None]] = set()
        self._dead = False

    def doubt(self) -> str | None:
        """Why new clients should go elsewhere; None while all tasks live."""
        return "task_died" if self._dead else None

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something for as long as the replica lives, or until it is done.

        Args:
            name: A metric's label.
        """
        task = asyncio.create_task(work, name=name)
        self._started.add(task)
        self.watch(task)
        return task

    def repeat(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        """Do something over and over. Errors are survived, for :data:`PATIENCE_SECONDS` in a row.

        Args:
            step: Waits until it is due, and does it once.
        """
        self.start(name, self._repeat(name, step))

    def watch(self, task: asyncio.Task[None] | None) -> None:
        """Notice the death of a task, if any, that a part has started, and ends itself after :meth:`stop`."""
        if task is not None:
            self._watched.add(task)
            task.add_done_callback(self._ended)

    async def stop(self, *names: str) -> None:
        """End the tasks of these names, or all: from then on no end is a death."""
        asked = {task for task in self._started if not names or task.get_name() in names}
        self._started -= asked
        self._watched -= asked if names else set(self._watched)
        for task in asked:
            task.cancel()
        if asked:
            await asyncio.wait(asked, timeout=STOP_SECONDS)

    def unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """The event loop's exception handler, told of errors that nobody waits for.

        They never end the replica, as they are about one message, one socket or one request: what goes on in
        callbacks, such as a fan-out, takes its next step whatever became of the last.
        """
        name = context.get("background", EVENT_LOOP)
        self._failed(name, context.get("exception"), context.get("message", ""))

    async def _repeat(self, name: str, step: Callable[[], Awaitable[None]]) -> None:
        clock = asyncio.get_running_loop().time
        failing_since = math.inf
        while True:
            try:
                await step()
            except Exception as problem:
                failing_since = min(failing_since, clock())
                if clock() >= failing_since + PATIENCE_SECONDS:
                    raise
                self._failed(name, problem)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                failing_since = math.inf

    def _failed(self, name: str, problem: BaseException | None, message: str = "") -> None:
        self._count(name)
        if (held := self._throttle.admit(name)) is None:
            return
        if problem is None:
            _log.error("background error", task=name, held=held, problem=message)
        else:
            # not asyncio's message, which quotes the arguments of callbacks
            _log.error("background error", task=name, held=held, exc_info=problem)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task not in self._watched:
            return
        self._watched.discard(task)
        self._started.discard(task)
        try:
            problem = task.exception()
        except asyncio.CancelledError as cancelled:
            problem = cancelled
        if problem is None:
            return
        self._dead = True
        self._count(task.get_name())
        # Its text too, which the log withholds elsewhere: it comes once, no token is in reach of these tasks,
        # and what an error quotes of the rest is a key at most, such as a user's name.
        cause = problem
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        text = str(cause)[:MOST_TEXT]
        _log.critical("task died", task=task.get_name(), problem=text, exc_info=problem)
        self._died()
