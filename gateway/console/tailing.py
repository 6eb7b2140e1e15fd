"""A live tail of a topic's messages for the console's pages, open while somebody looks."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from typing import Final, Protocol

import jinja2

from gateway.console.feeds import TICK_SECONDS, Fragment, Looker, frames
from gateway.errors import BusError, TooManyTails
from gateway.log import background_error
from gateway.tail import TailEnded, TailEvent, TailGap, TailMessage

TOPIC: Final = "console:tail:"
"""Begins the name of a tail's live topic; the rest is the topic that is tailed."""

SHOWN: Final = 100
"""Messages a page shows, the newest."""

SHOWN_TOGETHER: Final = 25
"""Messages of one tick that are shown; of more, the newest."""

SHOWN_CHARACTERS: Final = 2000
"""Of a payload."""

RETRY_SECONDS: Final = 5.0
"""Time from a failure to the next try."""

_WAIT_SECONDS: Final = 60.0


class OpenTail(Protocol):
    """A tail that is open."""

    async def take(self, seconds: float, /) -> list[TailEvent]:
        """What has come since the last call, after a wait of so many seconds at most."""

    def close(self) -> None:
        """Give back what it holds. Idempotent."""


class TopicTails(Protocol):
    """Opens tails."""

    async def open_topic(self, topic: str, /) -> OpenTail:
        """Tail a topic from now on.

        Raises:
            TooManyTails: So many are open.
            BusError: The bus or the store does not answer.
        """


class TailFeed:
    """One topic's tail: the messages of a tick are rendered once for all who look.

    Args:
        name: Of the topic that is tailed.
        ended: Called when nobody looks any more.
    """

    def __init__(
        self, name: str, tails: TopicTails, template: jinja2.Template, ended: Callable[[], object]
    ) -> None:
        self._name = name
        self._tails = tails
        self._template = template
        self._ended = ended
        self._lookers: dict[Looker, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._trouble = ""

    def enter(self, looker: Looker) -> None:
        """Somebody looks from now on, at what comes from now on."""
        self._lookers[looker] = None
        if self._trouble:
            looker.write(self._frames(self._notice(self._trouble)))
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def leave(self, looker: Looker) -> None:
        """Somebody looks no more; with the last of them the tail ends. Idempotent."""
        self._lookers.pop(looker, None)
        if not self._lookers and self._task is not None:
            self._task.cancel()
            self._task = None
            self._ended()

    async def _run(self) -> None:
        while True:
            try:
                with closing(await self._tails.open_topic(self._name)) as tail:
                    if self._trouble:
                        self._trouble = ""
                        self._say("messages are shown again")
                    while True:
                        self._show(await tail.take(_WAIT_SECONDS))
                        await asyncio.sleep(TICK_SECONDS)
            except (BusError, TooManyTails) as problem:
                trouble = str(problem)
            except Exception as problem:  # noqa: BLE001 -- top of this task
                background_error("console", problem)
                trouble = "the tail failed"
            if trouble != self._trouble:
                self._trouble = trouble
                self._say(trouble)
            await asyncio.sleep(RETRY_SECONDS)

    def _show(self, events: list[TailEvent]) -> None:
        messages = [event for event in events if isinstance(event, TailMessage)]
        for event in events:
            if isinstance(event, TailGap):
                self._say(f"{event.messages or 'some'} messages are missing here: {event.reason}")
            elif isinstance(event, TailEnded):
                self._say("the replica has moved its clients away")
        skipped = len(messages) - SHOWN_TOGETHER
        if messages:
            shown = messages[: -SHOWN_TOGETHER - 1 : -1]
            self._send(self._template.render(messages=shown, most=SHOWN_CHARACTERS))
        if skipped > 0:
            self._say(f"{skipped} more came in that second")

    def _say(self, text: str) -> None:
        self._send(self._notice(text))

    def _notice(self, text: str) -> str:
        return self._template.render(messages=[], notice=text)

    def _send(self, html: str) -> None:
        data = self._frames(html)
        for looker in list(self._lookers):
            looker.write(data)

    def _frames(self, html: str) -> bytes:
        return frames(
            TOPIC + self._name,
            (
                Fragment("tail", "prepend", html),
                Fragment(f"#tail > :nth-child(n + {SHOWN + 1})", "remove"),
            ),
        )
