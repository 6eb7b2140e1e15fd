"""What a NATS server refuses, in its own words: of which kind it is, and what to do about it.

The texts are of nats-server's ``server/client.go`` and ``server/errors.go``, the codes of its
``server/errors.json``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog

from gateway.log import QUIET_SECONDS, Throttle
from gateway.metrics import Metrics

FIRST_TRIAL_SECONDS: Final = 1.0
LONGEST_TRIAL_SECONDS: Final = 30.0
"""Time between two tries of a subject that is denied; the server logs each of them as an error."""

MOST_DENIED: Final = 1000
"""Subjects remembered as denied: the oldest is forgotten beyond that, and learned anew by a lost message."""

_log = structlog.get_logger(__name__)


class RefusalKind(StrEnum):
    """What is refused: the label of ``bus_refusals_total``."""

    PUBLISH = "publish_denied"
    SUBSCRIPTION = "subscription_denied"
    AUTHORIZATION = "authorization"
    LIMIT = "limit"
    PAYLOAD = "max_payload"
    STORE_FULL = "store_full"
    STREAM = "stream"
    NO_JETSTREAM = "no_jetstream"
    OTHER = "other"


ADVICE: Final = {
    RefusalKind.PUBLISH: "let this user publish to that subject; it is tried again by itself",
    RefusalKind.SUBSCRIPTION: "let this user subscribe to that subject; it is asked for again by itself",
    RefusalKind.AUTHORIZATION: "look at the user and password, token or credentials of bus.url and [bus]",
    RefusalKind.LIMIT: "raise that limit of the server or of this user's account",
    RefusalKind.PAYLOAD: "let limits.max_message_bytes and max_payload of all servers fit each other",
    RefusalKind.STORE_FULL: "give JetStream more room, or the stream less: history.max_bytes, narrower rules",
    RefusalKind.STREAM: "look at it with `nats stream info`: sealed, edited by hand, without a leader?",
    RefusalKind.NO_JETSTREAM: "enable JetStream on the servers and for this user's account",
    RefusalKind.OTHER: "look at the log of nats-server",
}
"""What an operator can do."""

_TEXTS: Final = (
    ("permissions violation for publish", RefusalKind.PUBLISH),
    ("permissions violation for subscription", RefusalKind.SUBSCRIPTION),
    ("maximum payload", RefusalKind.PAYLOAD),
    ("maximum", RefusalKind.LIMIT),
    ("throttling", RefusalKind.LIMIT),
    ("authorization", RefusalKind.AUTHORIZATION),
    ("authentication", RefusalKind.AUTHORIZATION),
    ("account", RefusalKind.AUTHORIZATION),
)

_CODES: Final = {
    10002: RefusalKind.STORE_FULL,  # of the account
    10023: RefusalKind.STORE_FULL,
    10028: RefusalKind.STORE_FULL,  # memory
    10047: RefusalKind.STORE_FULL,
    10077: RefusalKind.STORE_FULL,  # the stream's own limits, where it does not drop old messages
    10026: RefusalKind.LIMIT,  # consumers
    10027: RefusalKind.LIMIT,  # streams
    10039: RefusalKind.NO_JETSTREAM,
    10054: RefusalKind.PAYLOAD,
    10076: RefusalKind.NO_JETSTREAM,
}

_DENIED: Final = re.compile(
    r'Permissions Violation for (Subscription|Publish) to "([^"]*)"(?:.*\(sid "(\d+)"\))?'
)

TOO_MANY_SUBSCRIPTIONS: Final = "maximum subscriptions exceeded"


def kind_of(words: str) -> RefusalKind:
    """The kind of an ``-ERR`` of the server."""
    text = words.lower()
    return next((kind for part, kind in _TEXTS if part in text), RefusalKind.OTHER)


def kind_of_code(code: int) -> RefusalKind:
    """The kind of an error of JetStream (``err_code``)."""
    return _CODES.get(code, RefusalKind.STREAM)


@dataclass(frozen=True, slots=True)
class Denial:
    """A subject that the permissions deny.

    Attributes:
        number: The subscription's, where one that stood was taken away by new permissions; else 0.
    """

    publish: bool
    subject: str
    number: int


def denial_in(words: str) -> Denial | None:
    """What an ``-ERR`` says is denied; None where it is about something else."""
    found = _DENIED.match(words)
    if found is None:
        return None
    return Denial(found[1] == "Publish", found[2], int(found[3] or 0))


class Refusals:
    """Counts what is refused, and logs it in the server's words."""

    def __init__(self, metrics: Metrics) -> None:
        self._counts = {kind: metrics.bus_refusals.labels(kind) for kind in RefusalKind}
        self._throttle = Throttle(QUIET_SECONDS)

    def note(self, kind: RefusalKind, words: str) -> None:
        """The server refused something."""
        self._counts[kind].inc()
        if (held := self._throttle.admit(kind)) is not None:
            _log.warning(
                "bus server refused", kind=str(kind), words=words, advice=ADVICE[kind], held=held
            )


@dataclass(slots=True)
class _Denied:
    words: str
    pause: float
    try_at: float
    tried: bool = False


class DeniedSubjects:
    """Subjects to which this user may not publish.

    NATS says so only after the message is gone, so the first one is lost. Those that follow are refused here,
    until a trial has shown that the right was given back.

    Args:
        clock: Monotonic seconds.

    Attributes:
        known: By subject.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.known: dict[str, _Denied] = {}

    def deny(self, subject: str, words: str) -> bool:
        """The server denied a message to a subject; says whether that was a trial."""
        before = self.known.pop(subject, None)
        trial = before is not None and before.tried
        if before is not None and not trial:  # it was sent before the first was denied
            self.known[subject] = before
            return False
        pause = FIRST_TRIAL_SECONDS
        if before is not None:
            pause = min(2 * before.pause, LONGEST_TRIAL_SECONDS)
        elif len(self.known) >= MOST_DENIED:
            del self.known[next(iter(self.known))]
        self.known[subject] = _Denied(words, pause, self._clock() + pause)
        return trial

    def words(self, subject: str) -> str:
        """What the server said of a denied subject."""
        return self.known[subject].words

    def due(self, subject: str) -> bool:
        """Whether a denied subject is to be tried now; it is not again until :meth:`decided`."""
        denied = self.known[subject]
        denied.tried, before = self._clock() >= denied.try_at, denied.tried
        return denied.tried and not before

    def decided(self, subject: str) -> None:
        """The server has answered behind a trial: allowed, unless it was denied anew meanwhile."""
        denied = self.known.get(subject)
        if denied is not None and denied.tried:
            del self.known[subject]
