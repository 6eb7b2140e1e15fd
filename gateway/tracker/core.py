"""The tracker's core: what replicas tell each other so that all agree on who is there. Pure, without a clock.

Each replica is the only writer of its own entries. It numbers their changes, and every message says from
which version to which it leads, so a receiver that missed one notices and asks. Nothing is acknowledged:
what heals a lost last message is the digest, which repeats the version one second and ten seconds after
the last change, and now and then afterwards.

Who takes a key says hello, and those that hold it answer. Nothing else is said because a replica is new. Two
that could not hear each other for a while compare the keys that changed meanwhile, and those that had others.

Time comes in as monotonic seconds; effects go out, in order.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from math import inf
from typing import Final

from msgspec.structs import replace

from gateway.tracker.comparison import Comparison
from gateway.tracker.digests import AUDIT_SECONDS, SOON_SECONDS, Digests
from gateway.tracker.effects import Announce, Direct, Lost, Publish, Superseded, TrackerEffect
from gateway.tracker.entry import PRESENCE, Entry
from gateway.tracker.messages import (
    Ask,
    Beat,
    Delta,
    Digest,
    Farewell,
    Hello,
    State,
    TrackerMessage,
)
from gateway.tracker.moves import Moves
from gateway.tracker.peers import Heard, Peer, Peers
from gateway.tracker.view import Change, View

UNCONFIRMED_SECONDS: Final = 2.5 * AUDIT_SECONDS
"""After which another replica's entries are asked for: its last digests must have been lost."""

ASK_AGAIN_SECONDS: Final = 1.0

BEATS_PER_SILENCE: Final = 5
"""Beats that must be lost in a row for a replica to count as dead, while there are few replicas."""

BEATS_HEARD_PER_SECOND: Final = 25
"""With more peers than this allows all beat more slowly: each wakes the process."""

LONGEST_BEAT: Final = 0.6
"""Share of the silence that counts as death that a beat takes at most; then who is silent is asked."""

DOUBT_SECONDS: Final = 1.0

KEYS_PER_TICK: Final = 500
"""Keys of which a newcomer is told in one tick that somebody moves."""

UNNOTICED_SECONDS: Final = 10.0
"""How long the bus may have been away before that was noticed."""


class Tracker:
    """All keys of one replica.

    Args:
        replica: Its id.
        incarnation: Higher than that of any earlier run under this id.
        down_after_seconds: Silence after which another replica counts as dead.
        spread: A number from 0 to 1, to keep replicas from sending their digests at once.

    Attributes:
        sessions: How many this replica has, for its beats.
        connections: The same.
        time: The wall clock, Unix seconds, for the same.
    """

    def __init__(
        self,
        replica: str,
        incarnation: int,
        *,
        down_after_seconds: float,
        spread: Callable[[], float],
    ) -> None:
        self.replica = replica
        self.incarnation = incarnation
        self.peers = Peers(down_after_seconds)
        self.sessions = 0
        self.connections = 0
        self.time = 0.0
        self._down_after_seconds = down_after_seconds
        self._beat_at = self._doubt_at = -inf
        self._held_since = inf
        self._deaf_since = inf  # until that was said
        self._views: dict[str, View] = {}
        self._versions = count(1)
        self._version = 0
        self._digests = Digests(self._views.values(), spread, down_after_seconds)
        self._comparison = Comparison()
        self._moving: set[str] = set()
        self._moves = Moves()
        self._newcomers: deque[tuple[str, str]] = deque()  # to be told who moves, on which key

    def view(self, key: str) -> View | None:
        """A key that is held."""
        view = self._views.get(key)
        return view if view is not None and view.held else None

    def doubted(self, key: str) -> list[str]:
        """Live replicas that may have entries on a key and be unknown here; all, unless it is held."""
        view = self.view(key)
        return self.peers.unheard(inf if view is None else view.greeted_at)

    def greet_again(self, key: str, now: float) -> list[TrackerEffect]:
        """Say hello for a key of which that cannot be relied on any more, as the bus was away since."""
        view = self.view(key)
        return [] if view is None or view.greeted_at < inf else [self._hello(view, now)]

    def moving(self, key: str) -> bool:
        """Whether somebody moves, and may be known to replicas that do not hold the key any more."""
        return bool(self._moves.of(key))

    def own_state(self, key: str) -> State:
        """This replica's entries on a key, and the version they are at."""
        view = self._views.get(key)
        if view is None:
            # Forgotten here since its last entry left: a version no lower than any it ever had.
            return State(self.replica, self.incarnation, key, self._version, ())
        return State(
            self.replica,
            self.incarnation,
            key,
            view.version,
            tuple(view.own.values()),
            tuple(view.orphans.values()),
        )

    def hold(self, key: str, now: float) -> list[TrackerEffect]:
        """There is a local reason to know a key from now on; its subject is subscribed."""
        view = self._view(key, now)
        view.held = True
        view.greeted_at = inf
        self._held_since = min(self._held_since, now)
        self._digests.held(view, now)
        # there may be own ones that have been moving since the key was last held
        effects = [self._hello(view, now), *self._shown(view, view.own.values(), (), now)]
        for entry, heard_at in self._moves.of(key):
            if entry.id not in view.own:
                effects += self._take_orphans(view, (entry,), heard_at)
        return effects

    def drop(self, key: str) -> None:
        """The last local reason is gone. Own entries were removed before, or move; the key fades away."""
        view = self._views[key]
        view.held = False
        view.hide()
        if not view.own and not view.settling:
            self._forget(view)

    def put(self, key: str, entry: Entry, now: float) -> list[TrackerEffect]:
        """Add an entry of this replica, or change one."""
        return self._put(self._views[key], entry, now)

    def remove(self, key: str, session: str, now: float) -> list[TrackerEffect]:
        """Take an entry of this replica away; nothing happens if it is gone already."""
        view = self._views.get(key)
        if view is None or not view.remove_own(session):
            return []
        delta = self._delta(view, now, removed=(session,))
        return [delta, *self._shown(view, (), (session,), now)]

    def move(self, key: str, session: str, now: float) -> list[TrackerEffect]:
        """Mark an entry of this replica as moving, once: it stays, for a while, though its socket is closed.

        Who is present is told to all replicas, as any may get the client; of sessions nobody sees the refs.
        """
        view = self._views.get(key)
        if view is None or session not in view.own or view.own[session].moving:
            return []
        moving = replace(view.own[session], moving=True)
        effects = self._put(view, moving, now)
        if key.startswith(PRESENCE):
            self._moves.add(key, (moving,), now)
            effects.append(Announce(self._orphans(key, moving)))
        return effects

    def receive(self, message: TrackerMessage, now: float) -> list[TrackerEffect]:
        """A message of another replica, or of this one, which is ignored."""
        if message.replica == self.replica:
            later = message.incarnation > self.incarnation
            return [Superseded()] if later else []
        if isinstance(message, Farewell):
            left = self.peers.forget(message.replica, message.incarnation)
            return self._depart(message.replica, now) if left else []
        before = self.peers.get(message.replica)
        heard = self.peers.hear(message.replica, message.incarnation, now)
        if heard is Heard.OUTDATED:
            return []
        effects: list[TrackerEffect] = []
        if heard is Heard.RESTARTED and before is not None:
            effects += self._purge(message.replica, before, now)
        if heard is not Heard.KNOWN:
            # it should know this one, too
            effects.append(Direct(message.replica, self._beat(now)))
            if self._tells_of_moves(message.replica):
                self._newcomers.extend((message.replica, key) for key in self._moves)
        return effects + self._told(message, now)

    def tick(self, now: float) -> list[TrackerEffect]:
        """Do what is due; called a few times a second."""
        effects: list[TrackerEffect] = []
        for replica, peer in self.peers.lost(now, self._beat_seconds):
            effects += self._purge(replica, peer, now)
        if now >= self._beat_at:
            self._beat_at = now + self._beat_seconds
            effects.append(self.announce(now))
        if now >= self._doubt_at:
            self._doubt_at = now + DOUBT_SECONDS
            doubt = self._beat(now, wanted=True)
            effects += [Direct(replica, doubt) for replica in self.peers.doubtful(now)]
        effects += self._end_moves(now)
        self._comparison.begin(self._views.values(), self._digests, len(self.peers) + 1, now)
        effects += self._send_digests(now)
        self._moves.expire(now)
        for _ in range(min(KEYS_PER_TICK, len(self._newcomers))):
            replica, key = self._newcomers.popleft()
            moving = [entry for entry, _ in self._moves.of(key)]
            effects.append(Direct(replica, self._orphans(key, *moving)))
        return effects

    def bus_changed(self, connected: bool, now: float) -> None:
        """The bus went down, or came back: then what was said meanwhile is compared."""
        self.peers.bus_changed(connected)
        for view in self._views.values():
            view.greeted_at = inf
        if not connected:
            self._deaf_since = min(self._deaf_since, now - UNNOTICED_SECONDS)
            return
        self._beat_at = -inf
        if self._deaf_since < inf:
            self._comparison.want(self._deaf_since, shared=True)

    def announce(self, now: float) -> Announce:
        """This replica is here; and what it missed, if the bus was away."""
        missed = 0.0
        if self.peers.connected and self._deaf_since < inf:
            missed = now - self._deaf_since
            self._deaf_since = inf
        return Announce(self._beat(now, missed=missed))

    def farewell(self) -> Announce:
        """This replica leaves; nothing of it may be sent afterwards."""
        return Announce(Farewell(self.replica, self.incarnation))

    def _told(
        self, message: Hello | State | Delta | Digest | Ask | Beat, now: float
    ) -> list[TrackerEffect]:
        match message:
            case Beat():
                return self._receive_beat(message, now)
            case Ask():
                return [Direct(message.replica, self.own_state(message.key))]
            case State():
                self._moves.add(message.key, message.orphans, now)
        view = self.view(message.key)
        if view is None:
            return []
        if isinstance(message, State) and message.orphans and not message.version:
            return self._take_orphans(
                view, message.orphans, now
            )  # the sender need not hold the key
        new = view.meet(message.replica, message.incarnation, now)
        if new:
            self._digests.met(view, now)
        match message:
            case Hello():
                effects = self._state(view, message, now)
                return [*effects, Direct(message.replica, self.own_state(message.key))]
            case State():
                effects = self._state(view, message, now)
                return effects + self._take_orphans(view, message.orphans, now)
            case Delta():
                return self._receive_delta(view, message, now)
            case Digest():
                return self._receive_digest(view, message, now, new=new)

    def _view(self, key: str, now: float) -> View:
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(key, due=inf, changed_at=now)
        return view

    def _forget(self, view: View) -> None:
        view.due = inf
        del self._views[view.key]

    @property
    def _beat_seconds(self) -> float:
        usual = self._down_after_seconds / BEATS_PER_SILENCE
        seconds = max(usual, len(self.peers) / BEATS_HEARD_PER_SECOND)
        return min(seconds, self._down_after_seconds * LONGEST_BEAT)

    def _beat(self, now: float, *, missed: float = 0.0, wanted: bool = False) -> Beat:
        return Beat(
            self.replica,
            self.incarnation,
            self.sessions,
            self.connections,
            self.time,
            max(0.0, now - self._held_since),
            missed,
            wanted,
        )

    def _receive_beat(self, beat: Beat, now: float) -> list[TrackerEffect]:
        self.peers.beaten(beat.replica, now)
        peer = self.peers[beat.replica]
        peer.sessions, peer.connections = beat.sessions, beat.connections
        if beat.time:
            peer.clocks.append(beat.time - now)
        if beat.held:
            peer.held_since = now - beat.held
        if not peer.met:
            peer.met = True
            since = peer.apart_since
            if since is None:
                # one that just started has no keys yet; any other could not be heard
                since = max(self._held_since, peer.held_since)
            if now - since > SOON_SECONDS:  # else the first digests are still to come
                self._comparison.want(since - SOON_SECONDS)
        if beat.missed:
            self._comparison.want(now - beat.missed)
        return [Direct(beat.replica, self._beat(now))] if beat.wanted else []

    def _tells_of_moves(self, newcomer: str) -> bool:
        """Whether it is for this replica to tell a new one who moves: who was there first does."""
        others = (self.peers[replica] for replica in self.peers if replica != newcomer)
        return not any(peer.held_since < self._held_since for peer in others)

    def _hello(self, view: View, now: float) -> Publish:
        view.greeted_at = min(view.greeted_at, now)
        hello = Hello(
            self.replica, self.incarnation, view.key, view.version, tuple(view.own.values())
        )
        return Publish(view.key, hello)

    def _orphans(self, key: str, *moving: Entry) -> State:
        """Tell of nothing but those who move; the version is that of a replica without entries."""
        return State(self.replica, self.incarnation, key, 0, (), moving)

    def _put(self, view: View, entry: Entry, now: float) -> list[TrackerEffect]:
        entry = view.put_own(entry)
        return [self._delta(view, now, put=(entry,)), *self._shown(view, (entry,), (), now)]

    def _delta(
        self, view: View, now: float, put: tuple[Entry, ...] = (), removed: tuple[str, ...] = ()
    ) -> Publish:
        previous = view.version
        # Numbers are drawn from one counter for all keys: a key that was forgotten and is held again
        # must not use a number twice.
        view.version = self._version = next(self._versions)
        self._digests.changed(view, now)
        delta = Delta(
            self.replica, self.incarnation, view.key, previous, view.version, put, removed
        )
        return Publish(view.key, delta)

    def _send_digests(self, now: float) -> Iterable[TrackerEffect]:
        for view in self._digests.due(now):
            known = None
            if view.comparing and view.held:
                view.comparing -= 1
                known = view.known(self.replica)
                view.greeted_at = min(view.greeted_at, now)
            yield Publish(view.key, self._digest(view, known))
            yield from self._audit(view, now)
            if not self._digests.sent(view, now):
                self._forget(view)

    def _digest(self, view: View, known: int | None = None) -> Digest:
        count_ = len(view.own)
        return Digest(self.replica, self.incarnation, view.key, view.version, count_, known)

    def _audit(self, view: View, now: float) -> Iterable[TrackerEffect]:
        for replica, remote in list(view.remotes.items()):
            if now - remote.confirmed_at > UNCONFIRMED_SECONDS:
                if remote.entries:
                    yield from self._ask(view, replica, now)
                else:  # it does not hold the key any more
                    del view.remotes[replica]

    def _ask(self, view: View, replica: str, now: float) -> Iterable[TrackerEffect]:
        remote = view.remotes[replica]
        if now - remote.asked_at >= ASK_AGAIN_SECONDS:
            remote.asked_at = now
            yield Direct(replica, Ask(self.replica, self.incarnation, view.key))

    def _state(self, view: View, message: Hello | State, now: float) -> list[TrackerEffect]:
        effects = self._changed(view, view.take_state(message, message.entries, now))
        return effects + self._give_back(view, message.entries, now)

    def _take_orphans(
        self, view: View, moving: Iterable[Entry], heard_at: float
    ) -> list[TrackerEffect]:
        fresh = [e for e in moving if e.moving and e.id not in view.shown]
        effects = self._shown(view, fresh, (), heard_at)
        view.orphans |= {e.id: e for e in fresh if e.id in view.shown}
        return effects

    def _give_back(self, view: View, others: Iterable[Entry], now: float) -> list[TrackerEffect]:
        """Have own sessions take another place where others had theirs before them."""
        effects: list[TrackerEffect] = []
        for entry in view.contested(others):
            effects += self._put(view, entry, now)
        return effects

    def _receive_delta(self, view: View, delta: Delta, now: float) -> list[TrackerEffect]:
        if view.misses(delta.replica, delta.previous, delta.version):
            return list(self._ask(view, delta.replica, now))
        effects = self._changed(view, view.take_delta(delta, now))
        return effects + self._give_back(view, delta.put, now)

    def _receive_digest(
        self, view: View, digest: Digest, now: float, *, new: bool
    ) -> list[TrackerEffect]:
        effects: list[TrackerEffect] = []
        if not view.agrees(digest, now):
            effects += self._ask(view, digest.replica, now)
        if new:  # it may know as little of this one
            effects.append(Direct(digest.replica, self.own_state(view.key)))
        elif digest.known not in (None, view.known(self.replica)):
            effects.append(Direct(digest.replica, self._digest(view)))
        return effects

    def _shown(
        self, view: View, put: Iterable[Entry], removed: Iterable[str], now: float
    ) -> list[TrackerEffect]:
        return self._changed(view, view.show(put, removed, now))

    def _changed(self, view: View, different: bool) -> list[TrackerEffect]:
        if view.moving:
            self._moving.add(view.key)
        return [Change(view.key)] if different else []

    def _purge(self, replica: str, peer: Peer, now: float) -> list[TrackerEffect]:
        """Drop all entries of a run of a replica that is over."""
        effects: list[TrackerEffect] = []
        for view in self._views.values():
            remote = view.remotes.pop(replica, None)
            if remote is None:
                continue
            view.changed_at = now
            if remote.entries:
                effects += self._shown(view, (), list(remote.entries), now)
        return [*effects, Lost(replica, peer.incarnation, peer.sessions)]

    def _depart(self, replica: str, now: float) -> list[TrackerEffect]:
        """A replica said farewell: its moving entries are nobody's now and stay until their deadline."""
        effects: list[TrackerEffect] = []
        for view in self._views.values():
            remote = view.remotes.pop(replica, None)
            if remote is None:
                continue
            gone = [entry.id for entry in remote.entries.values() if not entry.moving]
            view.orphans |= {
                session: entry
                for session, entry in remote.entries.items()
                if entry.moving and session in view.shown
            }
            effects += self._shown(view, (), gone, now)
        return effects

    def _end_moves(self, now: float) -> list[TrackerEffect]:
        effects: list[TrackerEffect] = []
        for key in list(self._moving):
            view = self._views.get(key)
            if view is None:  # forgotten since
                self._moving.discard(key)
                continue
            overdue = view.overdue(now)
            # own ones whose clients have appeared elsewhere
            if view.held:
                overdue += [s for s, e in view.own.items() if e.moving and s not in view.shown]
            for session in overdue:
                view.orphans.pop(session, None)
                effects += self.remove(key, session, now)
            effects += self._shown(view, (), overdue, now)
            if not view.moving:
                self._moving.discard(key)
        return effects
