"""Decides what a client that resumes is answered and sent. Pure; whoever calls reads the store.

How a join is answered, on a topic whose rule keeps history:

1. :func:`parse` the join's params. None: the client did not opt in, and is a member like any other.
2. Wait until the topic's log is :attr:`~gateway.history.topiclog.TopicLog.ready`, and then read the store's
   tip: epoch, last offset of the whole stream, its time. One read may serve many joins, if it began after
   they arrived. If its epoch is not the one the log is of, ``log.reset`` comes first.
3. :func:`examine`. It gives the outcome, or says what has to be read for it:

   ============ ================ ==============================================================
   request      reads            which
   ============ ================ ==============================================================
   from now     0
   newest n     0 or 1           the newest n messages, unless ``log.ring.newest`` has them
   position     0                if the position is of another epoch, beyond the tip, or too old
   position     0 to 2 otherwise the topic's first ``limit`` messages above the position, unless
                                 ``log.ring.missed`` has them; when the message at the position's
                                 offset was stored, unless ``log.vouches`` for the position
   ============ ================ ==============================================================

   No read asks for more than the rule's ``messages`` and one. Each must be as fresh as the tip: it may not
   lack anything of the topic at or below the tip's offset. ``settle`` of what was returned then gives the
   outcome.
4. In one turn of the event loop: take ``log.ring.since(outcome.reached, outcome.known)``. It is what was
   delivered here while the store was read. None means the ring lost some of it meanwhile: begin again at 3.
   Then send the reply with :func:`response`, ``outcome.replay`` and these, and make the client a member. A
   replay may also be written bit by bit: what is due next is ``log.ring.since`` of the last offset written,
   and None there means that the rest has to be read from the store.
5. A member gets what the log delivers, but nothing at or below ``outcome.reached`` or the last offset it was
   sent: this replica's log may be behind the one where the client was before, or behind the store.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from gateway.history.base import Stored
from gateway.history.position import CLOCK_SECONDS, Position, decode, encode
from gateway.retention import Retention

Loss: TypeAlias = Literal["epoch_changed", "expired", "too_many", "no_history"]
"""Why nothing is replayed to a client that gave a position."""


class InvalidResume(Exception):
    """The join's ``resume`` is none; nothing of it is in the text."""

    def __init__(self) -> None:
        super().__init__("invalid resume")


class FromNow(msgspec.Struct, frozen=True):
    """``resume: null``: what comes, with positions."""


class After(msgspec.Struct, frozen=True):
    """``resume: "@…"``: what came after a position."""

    position: Position


class Newest(msgspec.Struct, frozen=True):
    """``resume: {"last": n}``: the newest messages."""

    count: int


ResumeRequest: TypeAlias = FromNow | After | Newest


class Outcome(msgspec.Struct, frozen=True):
    """What a join is answered.

    Attributes:
        recovered: Whether the client has everything after the replay; None when it gave no position.
        position: Where the client stands before the replay.
        replay: What it is sent first, in order.
        known: Offset up to which the replay is all there is, where it was read from the store; else 0.
    """

    recovered: bool | None
    reason: Loss | None
    position: Position
    replay: Sequence[Stored] = ()
    known: int = 0

    @property
    def reached(self) -> int:
        """The offset where the client stands after the replay."""
        return self.replay[-1].offset if self.replay else self.position.offset


class NeedMissed(msgspec.Struct, frozen=True):
    """What a client missed has to be known.

    Attributes:
        position: Where it stands.
        limit: How many of the messages after it are needed at most.
        here: Where one stands who knows everything.
        now: The store's time.
    """

    position: Position
    retention: Retention
    here: Position
    now: float

    @property
    def limit(self) -> int:
        """One more than may have been missed."""
        return self.retention.stored_messages

    def settle(
        self,
        messages: Sequence[Stored],
        stored_at: float | None,
        *,
        known: int = 0,
        gone: bool = False,
    ) -> Outcome:
        """The outcome.

        Args:
            messages: Those of the topic above the position, the first :attr:`limit` of them at least, in
                order.
            stored_at: When the message at the position's offset was stored, whichever topic it is of; None
                if there is none, or the log vouches for the position.
            known: The tip's offset if the messages were read from the store; 0 if the log had them.
            gone: Whether the store may have let go of messages after the position, as
                ``follower.may_lack`` says; False if the log had the messages.
        """
        position = self.position
        if stored_at is not None and stored_at > position.time + CLOCK_SECONDS:
            # another message had that offset when the position was given: the store is an older copy
            return _lost("epoch_changed", self.here)
        oldest = self.now - self.retention.stored_seconds
        if messages and messages[0].time < oldest:
            # a position that is younger than what comes after it was made up, to read on beyond the limit
            return _lost("expired", self.here)
        if gone:
            return _lost("expired", self.here)
        if len(messages) > self.retention.messages:
            return _lost("too_many", self.here)
        return Outcome(True, None, position, messages, known)


class NeedNewest(msgspec.Struct, frozen=True):
    """The newest messages have to be known.

    Attributes:
        count: How many.
        sent: Offset up to which this socket has the topic already.
    """

    count: int
    retention: Retention
    here: Position
    now: float
    sent: int

    def settle(self, messages: Sequence[Stored], *, known: int = 0) -> Outcome:
        """The outcome.

        Args:
            messages: The newest :attr:`count` of the topic, or all if there are fewer, in order.
            known: As in :meth:`NeedMissed.settle`.
        """
        oldest = self.now - self.retention.seconds
        replay = [m for m in messages if m.time >= oldest and m.offset > self.sent][-self.count :]
        if not replay:
            return Outcome(None, None, self.here, (), known)
        first = replay[0]
        before = Position(self.here.epoch, first.offset - 1, first.time)
        return Outcome(None, None, before, replay, known)


NOWHERE: Final = Position("-", 0, 0.0)
"""
The position given on a topic without history.

A client that comes back with it is told each time that nothing was recovered; with null in its place the
client would ask for nothing, and not be told.
"""


def parse(params: bytes | None, retention: Retention | None) -> ResumeRequest | None:
    """What a join's params ask for; None when they have no ``resume`` or are no object.

    Nothing else in the params is decoded. Of two keys of one name the last counts, as in JavaScript.

    Args:
        params: JSON as the client sent it.
        retention: Of the topic's rule; None when it keeps no history.

    Raises:
        InvalidResume: ``resume`` is neither null, a position, nor ``{"last": n}`` with an n that the rule
            allows; or the params are nested too deeply to be read.
    """
    if params is None:
        return None
    try:
        raw = _params.decode(params).resume
    except msgspec.ValidationError:
        return None  # no object
    except _UNREADABLE:
        raise InvalidResume from None
    if raw is msgspec.UNSET:
        return None
    try:
        resume = _resume.decode(raw)
        if resume is None:
            return FromNow()
        if isinstance(resume, str):
            return After(decode(resume))
    except _UNREADABLE:
        raise InvalidResume from None
    if resume.last < 1 or (retention is not None and resume.last > retention.messages):
        raise InvalidResume
    return Newest(resume.last)


def without_history(request: ResumeRequest) -> Outcome:
    """The outcome on a topic that keeps none."""
    recovered = False if isinstance(request, After) else None
    return Outcome(recovered, "no_history", NOWHERE)


def examine(
    request: ResumeRequest,
    retention: Retention,
    *,
    here: Position,
    last: int,
    now: float,
    sent: Position | None = None,
) -> Outcome | NeedMissed | NeedNewest:
    """Answer a request, or say what has to be read to answer it.

    Args:
        here: Where one stands who was sent all that this replica has delivered: the current epoch, and
            ``log.standing(now)``.
        last: Last offset of the whole stream, read after the request came: a position beyond what another
            replica knew a moment earlier is no sign of a new epoch.
        now: The store's time.
        sent: The last position this socket was sent on the topic, by a channel it has or had there: what
            is replayed begins above it.
    """
    if sent is not None and (sent.epoch != here.epoch or sent.offset > last):
        sent = None  # of an epoch before, or of a store that was replaced by an older copy since
    if sent is not None and sent.offset > here.offset:
        here = sent
    match request:
        case FromNow():
            return Outcome(None, None, here)
        case Newest(count):
            return NeedNewest(count, retention, here, now, sent.offset if sent else 0)
        case After(position):
            if position.epoch != here.epoch or position.offset > last:
                return _lost("epoch_changed", here)
            if sent is not None and sent.offset >= position.offset:
                position = sent
            if now - position.time > retention.seconds:
                return _lost("expired", here)
            return NeedMissed(position, retention, here, now)


def response(outcome: Outcome) -> bytes:
    """The response of the join's reply, as compact JSON."""
    return b'{"recovered":%b,"reason":%b,"position":"%b"}' % (
        _RECOVERED[outcome.recovered],
        _REASONS[outcome.reason],
        encode(outcome.position).encode(),
    )


def _lost(reason: Loss, here: Position) -> Outcome:
    return Outcome(False, reason, here)


class _Params(msgspec.Struct):
    resume: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Last(msgspec.Struct, forbid_unknown_fields=True):
    last: int


_params: Final = msgspec.json.Decoder(_Params)
_resume: Final = msgspec.json.Decoder(str | _Last | None)

# ValueError is the base of msgspec's and of the codec's; RecursionError: nested too deep
_UNREADABLE: Final = (ValueError, RecursionError)

_RECOVERED: Final = {True: b"true", False: b"false", None: b"null"}
_REASONS: Final = {
    None: b"null",
    "epoch_changed": b'"epoch_changed"',
    "expired": b'"expired"',
    "too_many": b'"too_many"',
    "no_history": b'"no_history"',
}
