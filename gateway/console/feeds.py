"""Topics of the console alone: fragments of its pages, rendered once for all who look.

The messages are those of ``live.js``, see ``docs/live.md``. Once in a tick each feed that somebody looks at
is rendered, and what changed is sent, encoded once. A feed that nobody looks at costs nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
from markupsafe import Markup

from gateway.config.fields import Scope
from gateway.protocol.messages import encode_json
from gateway.protocol.v2 import V2
from gateway.transport.framing import TEXT, frame

TICK_SECONDS: Final = 1.0

EVENT: Final = "live"

_encode: Final = V2().broadcast

FragmentAction: TypeAlias = Literal["replace", "append", "prepend", "update", "remove"]


class Fragment(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of a page.

    Attributes:
        target: Id of the element that is changed.
    """

    target: str
    action: FragmentAction
    html: str = ""


class Looker(Protocol):
    """Somebody who looks at a feed."""

    def write(self, data: bytes, /) -> None:
        """Take frames."""


class Feed:
    """A live topic.

    Args:
        render: Makes the HTML of each of its elements, by id.

    Attributes:
        topic: What its pages join.
        scope: What an API key must allow to look; None for any key.
    """

    def __init__(
        self, topic: str, scope: Scope | None, render: Callable[[], Mapping[str, str]]
    ) -> None:
        self.topic = topic
        self.scope = scope
        self._render = render
        self._lookers: dict[Looker, None] = {}
        self._shown: Mapping[str, str] = {}
        self._whole = b""
        self._fresh = False

    def enter(self, looker: Looker) -> None:
        """Somebody looks from now on: first at all there is, as the page may be a while old."""
        self._lookers[looker] = None
        current = self._current()
        self._whole = self._whole or self._frames(current)
        looker.write(self._whole)

    def leave(self, looker: Looker) -> None:
        """Somebody looks no more. Idempotent."""
        self._lookers.pop(looker, None)

    def html(self) -> dict[str, Markup]:
        """Its elements now, for a page; rendered once in a tick, however many ask."""
        return {target: Markup(html) for target, html in self._current().items()}  # noqa: S704 -- made by our templates

    def tick(self) -> None:
        """Send what changed, if anybody looks."""
        self._fresh = False
        if not self._lookers:
            return
        before, now = self._shown, self._current()
        changed = {target: html for target, html in now.items() if html != before.get(target)}
        if changed:
            data = self._frames(changed)
            for looker in list(self._lookers):
                looker.write(data)

    def _current(self) -> Mapping[str, str]:
        if not self._fresh:
            self._shown, self._whole = self._render(), b""
            self._fresh = True
        return self._shown

    def _frames(self, elements: Mapping[str, str]) -> bytes:
        return frames(self.topic, (Fragment(id_, "update", html) for id_, html in elements.items()))


def frames(topic: str, fragments: Iterable[Fragment]) -> bytes:
    """Messages of a console topic as WebSocket frames, one behind the other."""
    return b"".join(
        frame(TEXT, _encode(topic, EVENT, encode_json(fragment))) for fragment in fragments
    )
