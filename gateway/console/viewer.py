"""One open page of the console: a socket that speaks Phoenix Channels, and is no client's.

The protocol is the gateway's own core; in place of bus, hub and sessions there are feeds. So a viewer is in
no presence, no session list, no limit and no metric of clients.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, assert_never

from gateway.console.feeds import Looker
from gateway.console.sign_in import SignIn
from gateway.protocol.effects import (
    Activate,
    Authorize,
    Close,
    Effect,
    Forward,
    Ignore,
    Refresh,
    RefuseJoin,
    Resume,
    Send,
    Subscribe,
    Unsubscribe,
    UpdatePresence,
)
from gateway.protocol.messages import Outgoing, Undecodable
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.socket import Socket
from gateway.protocol.v2 import V2
from gateway.transport.framing import TEXT, close_frame, frame

MAX_FEEDS: Final = 8
"""Topics of one page."""

MAX_WAITING_BYTES: Final = 256 * 1024
"""What may wait for one viewer; one that reads too slowly is closed and comes back."""

JOINED: Final = b'{"recovered":true,"position":null}'
"""A join's answer: the page is brought up to date by what follows, so it needs to load nothing."""

_v2: Final = V2()


class LiveTopic(Protocol):
    """A topic of the console."""

    def enter(self, looker: Looker, /) -> None:
        """Somebody looks from now on."""

    def leave(self, looker: Looker, /) -> None:
        """Somebody looks no more. Idempotent."""


class Viewer:
    """One page's socket.

    Args:
        find: Finds a topic of the console by its name, or says why it may not be joined.
        clock: Monotonic seconds.

    Attributes:
        sign_in: Whose it is.
    """

    def __init__(
        self,
        sign_in: SignIn,
        find: Callable[[str], LiveTopic | Reason],
        transport: asyncio.WriteTransport,
        clock: Callable[[], float],
    ) -> None:
        self.sign_in = sign_in
        self._find = find
        self._transport = transport
        self._clock = clock
        self._core = Socket(max_channels=MAX_FEEDS)
        self._joined: dict[str, LiveTopic] = {}

    def receive(self, text: str) -> None:
        """A text frame came."""
        try:
            message = _v2.decode(text)
        except Undecodable as problem:
            self._perform(self._core.undecodable(problem, now=self._clock()))
        else:
            self._perform(self._core.receive(message))

    def write(self, data: bytes) -> None:
        """Send frames, unless it reads too slowly: then it is cut off, and comes back."""
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_WAITING_BYTES:
            self._transport.abort()
        else:
            self._transport.write(data)

    def sign_out(self) -> None:
        """Its sign-in is over: it is taken off all topics for good, which phoenix.js does not undo."""
        self._perform(self._core.end_all())
        self.close(CloseCode.SESSION_ENDED)

    def close(self, code: CloseCode) -> None:
        """Close from this side, and look at nothing more."""
        self.write(close_frame(code))
        self.gone()
        self._transport.close()

    def gone(self) -> None:
        """The connection has ended. Idempotent."""
        self._perform(self._core.disconnected())

    def _perform(self, effects: list[Effect]) -> None:
        core = self._core
        for effect in effects:
            match effect:
                case Send() | RefuseJoin():
                    self._send(effect.message)
                case Authorize():
                    effects += core.join_decided(
                        effect.topic, effect.attempt, refused=self._refusal(effect.topic)
                    )
                case Subscribe():
                    effects += core.subscribed(effect.topic, effect.attempt, JOINED)
                case Activate():
                    topic = self._joined[effect.topic]
                    topic.enter(self)
                case Unsubscribe():
                    if (left := self._joined.pop(effect.topic, None)) is not None:
                        left.leave(self)
                case Resume():
                    effects += core.resume(effect.topic, effect.attempt)
                case Refresh():
                    effects += core.refresh_answered(
                        effect.topic, effect.attempt, effect.ref, refused=Reason.UNAUTHORIZED
                    )
                case Forward() | UpdatePresence():  # it may do neither, and the core says so
                    raise AssertionError(effect)
                case Ignore():
                    pass
                case Close():
                    self.close(effect.code)
                case _:
                    assert_never(effect)

    def _refusal(self, name: str) -> Reason | None:
        """Why a topic may not be joined; None, and the topic is kept, if it may."""
        found = self._find(name)
        if isinstance(found, Reason):
            return found
        self._joined[name] = found
        return None

    def _send(self, message: Outgoing) -> None:
        self.write(frame(TEXT, _v2.encode(message)))
