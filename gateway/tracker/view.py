"""The state of one tracker key on this replica: own entries, those of others, and what is shown."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from gateway.tracker.entry import Entry
from gateway.tracker.messages import Delta, Digest, Hello, State

MOVING_SECONDS = 10.0
"""How long a moving entry is kept for its client to appear elsewhere."""

SETTLED_SECONDS = 60.0


class Change(msgspec.Struct, frozen=True):
    """What of a key is shown differently now; a changed entry is in both."""

    key: str
    joined: tuple[Entry, ...] = ()
    left: tuple[Entry, ...] = ()


@dataclass(slots=True, eq=False)
class Remote:
    """What is known of another replica's entries on a key.

    Attributes:
        version: The replica's version these are.
        confirmed_at: When the replica last said that this is its version.
        asked_at: When it was last asked for its state.
    """

    incarnation: int
    confirmed_at: float
    asked_at: float = float("-inf")
    version: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class View:
    """One key.

    Attributes:
        held: Whether there is a local reason to know the key; without one it only fades.
        own: This replica's entries.
        version: Number of the last change of ``own``; 0 before the first.
        remotes: Entries of others, by replica.
        shown: Everybody who is there, by session id, with the refs under which they are shown.
        limited: How many of these have a token that limits the user's sessions.
        due: When the next digest is to be sent.
        changed_at: When ``own`` last changed, or the key was first held.
    """

    key: str
    due: float
    changed_at: float
    held: bool = False
    own: dict[str, Entry] = field(default_factory=dict)
    version: int = 0
    remotes: dict[str, Remote] = field(default_factory=dict)
    orphans: dict[str, Entry] = field(default_factory=dict)
    shown: dict[str, Entry] = field(default_factory=dict)
    limited: int = 0
    # moving session -> until when it is kept
    _deadlines: dict[str, float] = field(default_factory=dict)
    # moving session that is not to be shown again -> until when to remember that: a successor has
    # its place, or its time is over, and its owner may not have heard yet
    _settled: dict[str, float] = field(default_factory=dict)

    def take_state(
        self, message: Hello | State, entries: tuple[Entry, ...], now: float
    ) -> Change | None:
        """Another replica said what all its entries are."""
        remote = self.remotes.get(message.replica)
        if remote is None:
            if not entries and not message.version:
                return None
            remote = self.remotes[message.replica] = Remote(message.incarnation, now)
        elif message.version < remote.version:
            return None
        remote.confirmed_at = now
        remote.asked_at = float("-inf")
        remote.version = message.version
        fresh = {entry.id: entry for entry in entries}
        removed = [session for session in remote.entries if session not in fresh]
        remote.entries = fresh
        return self.show(entries, removed, now)

    def misses(self, replica: str, previous: int, version: int) -> bool:
        """Whether changes from ``previous`` to ``version`` build upon something not known here."""
        known = self._version_of(replica)
        return version > known != previous

    def take_delta(self, delta: Delta, now: float) -> Change | None:
        """Another replica said what changed, and nothing is missing before it."""
        remote = self.remotes.get(delta.replica)
        if remote is None:
            remote = self.remotes[delta.replica] = Remote(delta.incarnation, now)
        if delta.version <= remote.version:
            return None
        remote.version = delta.version
        remote.confirmed_at = now
        for session in delta.removed:
            remote.entries.pop(session, None)
        remote.entries |= {entry.id: entry for entry in delta.put}
        return self.show(delta.put, delta.removed, now)

    def agrees(self, digest: Digest, now: float) -> bool:
        """Whether another replica's digest says nothing that is not known here."""
        remote = self.remotes.get(digest.replica)
        known = self._version_of(digest.replica)
        if digest.version == known and (remote is None or len(remote.entries) == digest.count):
            if remote is not None:
                remote.confirmed_at = now
            return True
        return digest.version < known

    def _version_of(self, replica: str) -> int:
        remote = self.remotes.get(replica)
        return 0 if remote is None else remote.version

    def show(self, put: Iterable[Entry], removed: Iterable[str], now: float) -> Change | None:
        """Take changes of any replica's entries into what is shown; None when nothing looks different."""
        joined: list[Entry] = []
        left: list[Entry] = []
        for session in removed:
            self._deadlines.pop(session, None)
            gone = self._take_off(session)
            if gone is not None:
                left.append(gone)
        for entry in put:
            self._show_one(entry, joined, left, now)
        if not joined and not left:
            return None
        return Change(self.key, tuple(joined), tuple(left))

    def hide(self) -> None:
        """Know of nobody but this replica's own entries: nobody asks any more."""
        self.remotes.clear()
        self.orphans.clear()
        self.shown.clear()
        self.limited = 0

    def _put_on(self, entry: Entry) -> None:
        before = self.shown.get(entry.id)
        self.shown[entry.id] = entry  # where it stood, if it is shown already
        self.limited += bool(entry.limit) - bool(before and before.limit)

    def _take_off(self, session: str) -> Entry | None:
        entry = self.shown.pop(session, None)
        if entry is not None:
            self.limited -= bool(entry.limit)
        return entry

    def _show_one(self, entry: Entry, joined: list[Entry], left: list[Entry], now: float) -> None:
        before = self.shown.get(entry.id)
        if before is None and entry.moving and self._is_over(entry, now):
            return
        if entry.moving and (before is None or not before.moving):
            self._deadlines[entry.id] = now + MOVING_SECONDS
        if before is None:
            before = self._predecessor(entry)
        if before is None:
            self._put_on(entry)
            joined.append(entry)
        elif entry.meta == before.meta:
            # Same to look at: it keeps the ref it is shown under.
            self._put_on(replace(entry, ref=before.ref, online_at=before.online_at))
        else:
            previous = before.ref if before.ref != entry.ref else before.previous_ref
            changed = replace(entry, previous_ref=previous, online_at=before.online_at)
            self._put_on(changed)
            left.append(before)
            joined.append(changed)

    def _is_over(self, moving: Entry, now: float) -> bool:
        """Whether a moving session that was not shown until now need not be shown any more."""
        if moving.id in self._settled:
            return True
        # Its client may be here already: a replica that begins to hold a key is told of it only then.
        if any(
            entry.connected_at > moving.connected_at and entry.succeeds(moving)
            for entry in self.shown.values()
        ):
            self._settled[moving.id] = now + MOVING_SECONDS + SETTLED_SECONDS
            return True
        return False

    def _predecessor(self, entry: Entry) -> Entry | None:
        """The moving session of the same device whose place a new one takes, if there is one."""
        for session in self._deadlines:
            old = self.shown.get(session)
            if old is not None and entry.succeeds(old):
                self._take_off(session)
                self._settled[session] = self._deadlines.pop(session) + SETTLED_SECONDS
                self.orphans.pop(session, None)
                return old
        return None

    def overdue(self, now: float) -> list[str]:
        """Moving sessions whose client did not appear anywhere in time; each is named once."""
        self._settled = {s: until for s, until in self._settled.items() if until > now}
        overdue = [session for session, deadline in self._deadlines.items() if deadline <= now]
        for session in overdue:
            del self._deadlines[session]
            self._settled[session] = now + SETTLED_SECONDS
        return overdue

    @property
    def moving(self) -> bool:
        """Whether there is anything :meth:`overdue` has to look at."""
        return bool(self._deadlines or self._settled)
