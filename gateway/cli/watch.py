"""``gateway watch``: a topic's messages as they come, one JSON object a line."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Final
from urllib.parse import quote

import msgspec
import typer

from gateway.cli.client import KeyOption, Unreachable, UrlOption, address, read_lines
from gateway.cli.options import Assignments, ConfigFile, Dev, complain, read_config, write

SILENCE_SECONDS: Final = 15.0
"""Three heartbeats of the stream."""

FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0

_MESSAGE: Final = b'{"type":"message",'
_GAPS: Final = {
    "slow": "this reader was too slow for them",
    "history": "the history lost messages before they could be read",
    "bus": "the bus was away, and nothing is kept of what was published meanwhile",
}
_LOSSES: Final = {
    "epoch_changed": "the history began anew",
    "expired": "it was away for longer than messages are kept",
    "too_many": "more came meanwhile than is kept",
}


def watch(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", help="A topic, or a pattern that ends with *.")
    ],
    *,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="End after N messages.")
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
) -> None:
    """Print a topic's messages as they are published.

    One JSON object a line, until Ctrl-C. Watching opens no session, shows in no presence and needs no
    channel rule. A pattern shows only topics that have members on the replica that is asked. After a
    restart of the replica it continues; where history is kept, with what was missed.
    """
    settings = read_config(config, dev, assignments).config
    view = WatchView(count)
    what = "pattern" if topic.endswith("*") else "topic"
    path = f"/v1/tail?{what}={quote(topic, safe='')}"
    target, secret = address(settings, path, scope="read", url=url, key=key)
    if what == "pattern":
        complain("a pattern shows only topics that have members on this replica", "note")
    try:
        asyncio.run(_follow(target, secret, view))
    except KeyboardInterrupt:
        return  # how a tail ends


async def _follow(url: str, key: str, view: "WatchView") -> None:
    """Read the stream, again and again once it was there, until the view has all it wants."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        after = f"&after={view.position}" if view.position else ""
        try:
            async with aclosing(read_lines(f"{url}{after}", key, SILENCE_SECONDS)) as lines:
                async for line in lines:
                    view.read(line)
                    if view.done:
                        return
                    pause = FIRST_PAUSE_SECONDS
        except Unreachable as problem:
            if not view.started:
                raise
            view.away(str(problem))
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class WatchView:
    """What is printed of a stream that may begin several times.

    Args:
        count: After how many messages it has enough; None for never.

    Attributes:
        started: Whether the stream began at least once.
        position: Where it is to go on; empty where nothing is kept.
    """

    def __init__(self, count: int | None) -> None:
        self._left = count
        self._away = False
        self.started = False
        self.position = ""

    @property
    def done(self) -> bool:
        """Whether it has enough."""
        return self._left == 0

    def away(self, why: str) -> None:
        """The stream broke off; said once, however often it cannot be begun again."""
        if not self._away:
            complain(f"{why}; connecting again", "warning")
        self._away = True

    def read(self, text: bytes) -> None:
        """Print what a line of the stream says."""
        line = msgspec.json.decode(text, type=_Line)
        match line.type:
            case "message":
                # as it stands: the payload is to be seen byte for byte
                write(b"{" + text.removeprefix(_MESSAGE))
                self._left = None if self._left is None else self._left - 1
            case "start":
                if self.started:
                    self._returned(line)
                self.started, self._away = True, False
            case "gap":
                number = (
                    "messages may be" if line.messages is None else f"{line.messages} messages are"
                )
                complain(
                    f"{number} missing here: {_GAPS.get(line.reason or '', line.reason)}", "warning"
                )
            case "end":
                self.away("the replica has moved its clients away")
        self.position = line.position or self.position

    def _returned(self, line: "_Line") -> None:
        if line.recovered:
            complain("connected again, and nothing was missed", "note")
        elif line.reason in _LOSSES:
            complain(
                f"connected again; messages may be missing here: {_LOSSES[line.reason]}", "warning"
            )
        else:
            complain("connected again; nothing is kept of what came meanwhile", "warning")


class _Line(msgspec.Struct):
    """See ``gateway.api.tail.TailLine``."""

    type: str
    position: str = ""
    recovered: bool | None = None
    messages: int | None = None
    reason: str | None = None
