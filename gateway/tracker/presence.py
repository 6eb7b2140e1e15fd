"""Presence of one topic, in Phoenix's format: who is there, and who came and went.

A joiner gets the state when the others get the diff that tells of it, so it is in it itself, as in Phoenix:
``onSync`` of phoenix.js first says so. The state is encoded once for all joiners, who do not get that diff;
what happens later is in the next one. So nobody misses a change or gets one twice.

Entries are told apart by their ref, which stays the same when a session moves to another replica.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeAlias

import msgspec

from gateway.protocol.messages import Json, encode_json
from gateway.tracker.entry import PRESENCE, Entry
from gateway.tracker.service import TrackerService
from gateway.tracker.view import Change

STATE_EVENT: Final = "presence_state"
DIFF_EVENT: Final = "presence_diff"
COUNT_EVENT: Final = "presence_count"

Event: TypeAlias = tuple[str, Json]
"""An event and its payload."""

Greet: TypeAlias = Callable[[list[Event]], None]
"""Tells a joiner what it is to be told first."""

SYNC_SECONDS: Final = 0.1
"""How long the first joiners of a topic on this replica wait for what the other replicas know."""


def encode_meta(entry: Entry) -> Json:
    """One meta: the ref, the gateway's fields, then what the client or its token added."""
    fields: dict[str, object] = {"phx_ref": entry.ref, "online_at": int(entry.online_at)}
    if entry.previous_ref:
        fields["phx_ref_prev"] = entry.previous_ref
    if entry.device.type:
        fields["device_type"] = entry.device.type
    head = encode_json(fields)
    return head if entry.meta == b"{}" else head[:-1] + b"," + entry.meta[1:]


def encode_metas(entries: Iterable[Entry]) -> Json:
    """``{user: {"metas": [...]}}`` of some entries."""
    users: dict[str, list[Json]] = {}
    for entry in entries:
        users.setdefault(entry.user, []).append(encode_meta(entry))
    parts = [
        b'%b:{"metas":[%b]}' % (encode_json(user), b",".join(metas))
        for user, metas in users.items()
    ]
    return b"{" + b",".join(parts) + b"}"


class TopicPresence:
    """Presence of one topic on this replica.

    Args:
        send: Sends an event and its payload to the topic's members on this replica, but for some, by id.
        gather_seconds: Changes within so long of the last diff are sent together.
        counts: Whether only numbers are shown.
        part_bytes: A longer state is sent in parts of about this size.

    Attributes:
        members: Sockets of this replica that are told.
    """

    def __init__(
        self,
        topic: str,
        tracker: TrackerService,
        send: Callable[[str, Json, frozenset[str]], None],
        *,
        gather_seconds: float,
        counts: bool,
        part_bytes: int,
    ) -> None:
        self.members = 0
        self._key = PRESENCE + topic
        self._tracker = tracker
        self._send = send
        self._gather_seconds = gather_seconds
        self._counts = counts
        self._part_bytes = part_bytes
        self._timer: asyncio.TimerHandle | None = None
        self._greeting: list[Event] | None = None
        self._waiting: list[tuple[str, Greet]] = []  # joiners, until the next diff, and their ids
        self._synced = (
            not tracker.peers
        )  # before that nobody has a state, and there is none to change
        self._flush_at = asyncio.get_running_loop().time() + SYNC_SECONDS if tracker.peers else 0.0
        self._view = tracker.hold(self._key, self._changed)
        self._told: dict[str, Entry] = _by_ref(self._view.shown.values())
        if not self._synced:
            self._schedule()

    def greet(self, session: str, joiner: Greet) -> None:
        """Tell a joiner who is there: when the others are told of a change if there is one, else now."""
        if self._timer is not None:
            self._waiting.append((session, joiner))
        else:
            joiner(self._greeting_of_all())

    def _greeting_of_all(self) -> list[Event]:
        if self._greeting is None:
            told = list(self._told.values())
            if self._counts:
                self._greeting = [(COUNT_EVENT, _encode_count(told))]
            else:
                self._greeting = list(_state_in_parts(told, self._part_bytes))
        return self._greeting

    def put(self, entry: Entry) -> None:
        """A session of this replica entered the topic."""
        self._tracker.put(self._key, entry)

    def update(self, session: str, ref: str, meta: Json) -> None:
        """A session of this replica changed its meta; nothing happens if it is not there."""
        entry = self._view.own.get(session)
        if entry is not None and entry.meta != meta:
            changed = msgspec.structs.replace(entry, ref=ref, meta=meta, previous_ref="")
            self._tracker.put(self._key, changed)

    def remove(self, session: str) -> None:
        """A session of this replica left, unless it moves: then it stays for a while."""
        entry = self._view.own.get(session)
        if entry is not None and not entry.moving:
            self._tracker.remove(self._key, session)

    def move(self, session: str) -> None:
        """A session of this replica is sent away and expected on another."""
        self._tracker.move(self._key, session)

    def close(self) -> None:
        """The last member of this replica is gone."""
        if self._timer is not None:
            self._timer.cancel()
        self._tracker.release(self._key)

    def _changed(self, _: Change) -> None:
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._flush_at), self._flush)

    def _flush(self) -> None:
        """Tell the members what is different from what they were told."""
        loop = asyncio.get_running_loop()
        self._timer = None
        self._flush_at = loop.time() + self._gather_seconds
        now = _by_ref(self._view.shown.values())
        joins = [entry for ref, entry in now.items() if ref not in self._told]
        leaves = [entry for ref, entry in self._told.items() if ref not in now]
        self._told = now
        waiting, self._waiting = self._waiting, []
        if joins or leaves:
            self._greeting = None
            if self._synced:
                greeted = frozenset(session for session, _ in waiting)
                if self._counts:
                    self._send(*self._greeting_of_all()[0], greeted)
                else:
                    diff = _diff(encode_metas(joins), encode_metas(leaves))
                    self._send(DIFF_EVENT, diff, greeted)
        self._synced = True
        for _, joiner in waiting:
            joiner(self._greeting_of_all())


def _by_ref(entries: Iterable[Entry]) -> dict[str, Entry]:
    return {entry.ref: entry for entry in entries}


def _diff(joins: Json, leaves: Json = b"{}") -> Json:
    return b'{"joins":%b,"leaves":%b}' % (joins, leaves)


def _state_in_parts(entries: list[Entry], part_bytes: int) -> Iterator[Event]:
    """The state, or its first part and then joins, so that no joiner's buffer is filled at once."""
    whole = encode_metas(entries)
    parts = -(-len(whole) // part_bytes)
    if parts <= 1:
        yield STATE_EVENT, whole
        return
    size = -(-len(entries) // parts)
    for start in range(0, len(entries), size):
        part = encode_metas(entries[start : start + size])
        yield (DIFF_EVENT, _diff(part)) if start else (STATE_EVENT, part)


class _Count(msgspec.Struct):
    users: int
    sessions: int


def _encode_count(entries: Iterable[Entry]) -> Json:
    sessions = list(entries)
    return encode_json(_Count(len({entry.user for entry in sessions}), len(sessions)))
