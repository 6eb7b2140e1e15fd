"""The state of one tracker key on this replica: own entries, those of others, and what is shown."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from zlib import crc32

import msgspec
from msgspec.structs import replace

from gateway.tracker.devices import DeviceIndex
from gateway.tracker.entry import NEXT_MOMENT, Entry
from gateway.tracker.messages import Delta, Digest, Hello, State, encode

MOVING_SECONDS = 10.0
"""How long a moving entry is kept for its client to appear elsewhere."""

SETTLED_SECONDS = 60.0


class Change(msgspec.Struct, frozen=True):
    """What is shown of a key is different now."""

    key: str


@dataclass(slots=True, eq=False)
class Remote:
    """What is known of another replica that holds a key, or did when it was last heard of on it.

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
        remotes: The others that hold it, by replica, and their entries.
        shown: Everybody who is there, by session id: the entries of all replicas as these say them,
            but for moving ones whose place is taken or whose time is over.
        limited: How many of these have a token that limits the user's sessions.
        by_device: These by device, where that is wanted, while the key is held.
        due: When the next digest is to be sent.
        changed_at: When ``own`` last changed, the key was first held, or one that held it, too, was lost.
        settling: Whether its first digest since it changed, or is to be compared, is not sent yet.
        comparing: How many of the next digests ask who knows something else.
        shared: Whether another replica was ever heard of on it.
        greeted_at: When the others were told that it is held, and asked; plus infinity while they may
            have missed that, or this replica their answers.
    """

    key: str
    due: float
    changed_at: float
    greeted_at: float = float("inf")
    held: bool = False
    settling: bool = False
    comparing: int = 0
    shared: bool = False
    own: dict[str, Entry] = field(default_factory=dict)
    version: int = 0
    remotes: dict[str, Remote] = field(default_factory=dict)
    orphans: dict[str, Entry] = field(default_factory=dict)
    shown: dict[str, Entry] = field(default_factory=dict)
    limited: int = 0
    by_device: DeviceIndex | None = None
    # ref of a moving session whose place one of ``own`` took -> that one as it was before;
    # forgotten when it changes, moves on or ends
    _heirs: dict[str, Entry] = field(default_factory=dict)
    # moving session -> until when it is kept, and whose it is
    _deadlines: dict[str, tuple[float, str]] = field(default_factory=dict)
    # user -> those of her sessions, as shown
    _leaving: dict[str, dict[str, Entry]] = field(default_factory=dict)
    # moving session that is not to be shown again -> until when to remember that: a successor has
    # its place, or its time is over, and its owner may not have heard yet
    _settled: dict[str, float] = field(default_factory=dict)

    def meet(self, replica: str, incarnation: int, now: float) -> bool:
        """Another replica was heard of on this key; whether that is new."""
        if replica in self.remotes:
            return False
        self.remotes[replica] = Remote(incarnation, now)
        self.shared = True
        return True

    def take_state(self, message: Hello | State, entries: tuple[Entry, ...], now: float) -> bool:
        """Another replica, which was met (:meth:`meet`), said what all its entries are.

        Returns what :meth:`show` does.
        """
        remote = self.remotes[message.replica]
        if message.version < remote.version:
            return False
        remote.confirmed_at = now
        remote.asked_at = float("-inf")
        remote.version = message.version
        fresh = {entry.id: entry for entry in entries}
        removed = [session for session in remote.entries if session not in fresh]
        remote.entries = fresh
        return self.show(entries, removed, now)

    def misses(self, replica: str, previous: int, version: int) -> bool:
        """Whether changes from ``previous`` to ``version`` build upon something not known here."""
        return version > self.remotes[replica].version != previous

    def take_delta(self, delta: Delta, now: float) -> bool:
        """Another replica said what changed, and nothing is missing before it.

        Returns what :meth:`show` does.
        """
        remote = self.remotes[delta.replica]
        if delta.version <= remote.version:
            return False
        remote.version = delta.version
        remote.confirmed_at = now
        for session in delta.removed:
            remote.entries.pop(session, None)
        remote.entries |= {entry.id: entry for entry in delta.put}
        return self.show(delta.put, delta.removed, now)

    def agrees(self, digest: Digest, now: float) -> bool:
        """Whether another replica's digest says nothing that is not known here."""
        remote = self.remotes[digest.replica]
        if digest.version == remote.version and digest.count == len(remote.entries):
            remote.confirmed_at = now
            return True
        return digest.version < remote.version

    def known(self, replica: str) -> int:
        """A checksum of all replicas' entries, as this one, which has the id given, knows them."""
        versions = [(name, each.version) for name, each in self.remotes.items() if each.entries]
        if self.own:
            versions.append((replica, self.version))
        return crc32(encode(sorted(versions)))

    def show(self, put: Iterable[Entry], removed: Iterable[str], now: float) -> bool:
        """Take changes of any replica's entries into what is shown; whether that looks different now."""
        different = False
        for session in removed:
            self._settle(session)
            different |= self._take_off(session) is not None
        standing: list[Entry] = []
        moving: list[Entry] = []
        for entry in put:
            (moving if entry.moving else standing).append(entry)
        fresh = [entry for entry in moving if entry.id not in self.shown]
        over = self._over(fresh, now) if fresh else ()
        # those that move first, the earlier before the later, for the others to take their places
        for entry in (*sorted(moving, key=lambda e: e.order), *standing):
            if entry.id not in over:
                different |= self._show_one(entry, now)
        return different

    def put_own(self, entry: Entry) -> Entry:
        """Take a session into ``own``, or change it; returns it as all shall show it.

        Whoever shows it goes by its refs alone, so that all replicas show the same: it has the ref of the
        moving session whose place it takes, or names it as the previous one if it looks different.
        """
        before = self.own.get(entry.id)
        if before is None:
            entry = self._inherit(entry)
        elif entry.ref != before.ref:
            entry = replace(entry, previous_ref=before.ref, online_at=before.online_at)
        self._forget_heir(before)
        self.own[entry.id] = entry
        return entry

    def remove_own(self, session: str) -> bool:
        """Take a session from ``own``; False if it is not there."""
        gone = self.own.pop(session, None)
        self._forget_heir(gone)
        return gone is not None

    def contested(self, others: Iterable[Entry]) -> list[Entry]:
        """Take those from ``own`` that must give back their places; returned as they were before.

        Replicas that could not know of each other gave the same place to two sessions, as those of two tabs.
        The one that came first keeps it.
        """
        givers = []
        for other in others if self._heirs else ():
            for ref in (other.ref, other.previous_ref):
                heir = self._heirs.get(ref)
                if heir is None or other.moving or heir.id == other.id:
                    continue
                if other.order < heir.order:
                    self.remove_own(heir.id)
                    givers.append(heir)
        return givers

    def hide(self) -> None:
        """Know of nobody but this replica's own entries: nobody asks any more."""
        for session in self._deadlines.keys() - self.own.keys():
            self._settle(session)
            del self._settled[session]  # it is shown again if the key is held again in time
        self.remotes.clear()
        self.orphans.clear()
        self.shown.clear()
        self.limited = 0
        self.by_device = None

    def index_devices(self) -> None:
        """Keep what is shown by device, too."""
        self.by_device = DeviceIndex(self.shown.values())

    def _put_on(self, entry: Entry) -> None:
        before = self.shown.get(entry.id)
        self.shown[entry.id] = entry  # where it stood, if it is shown already
        self.limited += bool(entry.limit) - bool(before and before.limit)
        if self.by_device is not None:
            self.by_device.change(before, entry)

    def _take_off(self, session: str) -> Entry | None:
        entry = self.shown.pop(session, None)
        if entry is not None:
            self.limited -= bool(entry.limit)
            if self.by_device is not None:
                self.by_device.change(entry, None)
        return entry

    def _show_one(self, entry: Entry, now: float) -> bool:
        before = self.shown.get(entry.id)
        if entry.moving and self._moved_on(entry):
            self._settle(entry.id)
            self._settled.setdefault(entry.id, now + MOVING_SECONDS + SETTLED_SECONDS)
            return self._take_off(entry.id) is not None
        places = {old.ref for old in self._predecessors(entry)}
        if before is not None:
            places.add(before.ref)
        if entry.moving and (before is None or not before.moving):
            self._deadlines[entry.id] = (now + MOVING_SECONDS, entry.user)
            self._leaving.setdefault(entry.user, {})[entry.id] = entry
        self._put_on(entry)
        return places != {entry.ref}

    def _moved_on(self, entry: Entry) -> bool:
        """Whether a moving session's client was on another replica already, and moves from there."""
        leaving = self._leaving.get(entry.user, {}).values()
        return any(new.order > entry.order and new.has_place_of(entry) for new in leaving)

    def _inherit(self, entry: Entry) -> Entry:
        """A new session of this replica, in the place of a moving one where there is one."""
        leaving = self._leaving.get(entry.user, {}).values()
        old = next((old for old in leaving if entry.succeeds(old)), None)
        if old is None:
            return entry
        later = max(entry.connected_at, old.connected_at + NEXT_MOMENT)
        entry = self._heirs[old.ref] = replace(entry, connected_at=later)
        if entry.meta == old.meta:
            return replace(
                entry, ref=old.ref, online_at=old.online_at, previous_ref=old.previous_ref
            )
        return replace(entry, online_at=old.online_at, previous_ref=old.ref)

    def _forget_heir(self, entry: Entry | None) -> None:
        if entry is None:
            return
        for ref in (entry.ref, entry.previous_ref):
            heir = self._heirs.get(ref)
            if heir is not None and heir.id == entry.id:
                del self._heirs[ref]

    def _over(self, fresh: list[Entry], now: float) -> set[str]:
        """Which moving sessions that were not shown until now need not be shown any more."""
        taken: set[str] = set()
        if len(self.shown) > len(self._deadlines):  # else all that are shown move
            # The client may be here already: a replica that begins to hold a key may hear of it first.
            for entry in self.shown.values():
                if not entry.moving:
                    taken.update((entry.ref, entry.previous_ref))
        over = {entry.id for entry in fresh if entry.ref in taken or entry.id in self._settled}
        for session in over:
            self._settled.setdefault(session, now + MOVING_SECONDS + SETTLED_SECONDS)
        return over

    def _predecessors(self, entry: Entry) -> list[Entry]:
        """Take off the moving sessions in whose place one comes, and return them."""
        leaving = self._leaving.get(entry.user, {}).values()
        gone = [
            old
            for old in leaving
            if entry.has_place_of(old) and (not entry.moving or old.order < entry.order)
        ]
        for old in gone:
            self._settle(old.id)
            self._take_off(old.id)
            self.orphans.pop(old.id, None)
        return gone

    def _settle(self, session: str) -> None:
        """A moving session is not to be shown any more."""
        if session not in self._deadlines:
            return
        deadline, user = self._deadlines.pop(session)
        self._settled[session] = deadline + SETTLED_SECONDS
        self._leaving[user].pop(session, None)
        if not self._leaving[user]:
            del self._leaving[user]

    def overdue(self, now: float) -> list[str]:
        """Moving sessions whose client did not appear anywhere in time; each is named once."""
        self._settled = {s: until for s, until in self._settled.items() if until > now}
        overdue = [session for session, (until, _) in self._deadlines.items() if until <= now]
        for session in overdue:
            self._settle(session)
        return overdue

    @property
    def moving(self) -> bool:
        """Whether there is anything :meth:`overdue` has to look at."""
        return bool(self._deadlines or self._settled)
