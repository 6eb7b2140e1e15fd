"""The other replicas: which are alive, judged by when they were last heard."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf
from typing import Final

STALL_SECONDS: Final = 2.0
"""A pause between two checks above which this replica was stalled, and cannot tell who was silent."""

CLOCK_BEATS: Final = 5
"""Of so many beats the newest clock counts: one that was long under way looks like an older clock."""


DOUBTED_AFTER: Final = 0.7
"""Share of the silence that counts as death after which a replica is asked whether it is alive."""

QUIET_BEATS: Final = 1.5
"""Time between two beats, times this: after so long one is missing, and who sends them may be cut off."""

BEATS_APART: Final = 0.1
"""
The same share between two beats that count as two.

Who was stalled answers at once, and several times, those who asked meanwhile whether it is alive.
"""

REMEMBERED: Final = 1000
"""Lost replicas that are remembered, the latest, to be known when they come back."""


class Heard(Enum):
    """Who a message came from."""

    KNOWN = auto()
    NEW = auto()
    RESTARTED = auto()
    """A later run under a known id; the earlier one's entries are void."""
    OUTDATED = auto()
    """A message of an earlier run, which is over."""


@dataclass(slots=True, eq=False)
class Peer:
    """Another replica: which run of it, when it was last heard (monotonic seconds), what its beats say.

    Attributes:
        clocks: How far its wall clock was ahead of this process's monotonic one, by its last beats.
        apart_since: When it was last heard before it was lost, if it has come back.
        held_since: When it first held a key, monotonic seconds of this process; infinite if it never did.
        met: Whether it has beaten since it was first heard, or came back.
        beat_at: When its last beat came; minus infinity before the first since this replica was deaf.
        beat_before: The same of the beat before that.
    """

    incarnation: int
    heard_at: float
    apart_since: float | None = None
    held_since: float = inf
    met: bool = False
    sessions: int = 0
    connections: int = 0
    clocks: deque[float] = field(default_factory=lambda: deque(maxlen=CLOCK_BEATS))
    beat_at: float = -inf
    beat_before: float = -inf


class Peers:
    """All other replicas that are alive.

    Args:
        down_after_seconds: Silence after which one counts as dead.

    Attributes:
        connected: Whether the bus is there, as far as is known.
        quiet: Those that may be cut off: silent for long, or without a beat since this replica was deaf.
    """

    def __init__(self, down_after_seconds: float) -> None:
        self._down_after_seconds = down_after_seconds
        self._peers: dict[str, Peer] = {}
        self._lost: dict[str, Peer] = {}
        self._looked_at: float | None = None
        self.connected = True
        # as long as that is later than some time, all have beaten twice since then
        self._beaten_since = -inf
        self.quiet: set[str] = set()

    def __len__(self) -> int:
        return len(self._peers)

    def __iter__(self) -> Iterator[str]:
        return iter(self._peers)

    def __getitem__(self, replica: str) -> Peer:
        return self._peers[replica]

    def get(self, replica: str) -> Peer | None:
        return self._peers.get(replica)

    def hear(self, replica: str, incarnation: int, now: float) -> Heard:
        """A message came; unless it is outdated, its sender is alive."""
        peer = self._peers.get(replica)
        if peer is not None and incarnation < peer.incarnation:
            return Heard.OUTDATED
        if peer is not None and incarnation == peer.incarnation:
            peer.heard_at = now
            return Heard.KNOWN
        lost = self._lost.get(replica)
        if lost is not None and incarnation < lost.incarnation:
            return Heard.OUTDATED
        self._lost.pop(replica, None)
        back = lost is not None and incarnation == lost.incarnation
        self._peers[replica] = Peer(incarnation, now, lost.heard_at if lost and back else None)
        self._beaten_since = -inf
        self.quiet.add(replica)
        return Heard.NEW if peer is None else Heard.RESTARTED

    def beaten(self, replica: str, now: float) -> None:
        """A beat of one that is alive came."""
        self.quiet.discard(replica)
        peer = self._peers[replica]
        if now - peer.beat_at >= self._down_after_seconds * BEATS_APART:
            peer.beat_before, peer.beat_at = peer.beat_at, now

    def unheard(self, since: float) -> list[str]:
        """Those that may be alive and yet not have read what they were told then.

        Who was stalled and goes on may beat once before it reads what came meanwhile, but not twice.

        Args:
            since: When they were told, monotonic seconds.
        """
        if since < self._beaten_since:
            return list(self.quiet)
        late = (replica for replica, peer in self._peers.items() if peer.beat_before <= since)
        return list({*late, *self.quiet})

    def forget(self, replica: str, incarnation: int) -> bool:
        """One said farewell; False when that run of it is not known."""
        peer = self._peers.get(replica)
        if peer is None or peer.incarnation != incarnation:
            return False
        del self._peers[replica]
        self.quiet.discard(replica)
        return True

    def lost(self, now: float, beat_seconds: float) -> list[tuple[str, Peer]]:
        """Those that were silent for too long; they are forgotten. To be asked a few times a second.

        Whoever heard nothing cannot say that others said nothing: while this replica is stalled or cut
        from the bus all count as just heard.
        """
        stalled = self._looked_at is not None and now - self._looked_at > STALL_SECONDS
        self._looked_at = now
        if stalled or not self.connected:
            for peer in self._peers.values():
                peer.heard_at = now
            self._doubt_all()
        lost = [
            (replica, peer)
            for replica, peer in self._peers.items()
            if now - peer.heard_at > self._down_after_seconds
        ]
        for replica, peer in lost:
            del self._peers[replica]
            self.quiet.discard(replica)
            self._lost[replica] = peer
            if len(self._lost) > REMEMBERED:
                del self._lost[next(iter(self._lost))]
        most = self._down_after_seconds * DOUBTED_AFTER
        quiet_since = now - min(beat_seconds * QUIET_BEATS, most)
        self.quiet |= {name for name, peer in self._peers.items() if peer.heard_at < quiet_since}
        self._beaten_since = min((peer.beat_before for peer in self._peers.values()), default=now)
        return lost

    def doubtful(self, now: float) -> list[str]:
        """Those that were silent for so long that a beat of theirs must have been lost."""
        since = now - self._down_after_seconds * DOUBTED_AFTER
        return [replica for replica, peer in self._peers.items() if peer.heard_at < since]

    def clocks(self) -> dict[str, float]:
        """By replica: how far its wall clock is ahead of this process's monotonic one, in seconds."""
        return {name: max(peer.clocks) for name, peer in self._peers.items() if peer.clocks}

    def bus_changed(self, connected: bool) -> None:
        self.connected = connected
        if not connected:
            self._doubt_all()

    def _doubt_all(self) -> None:
        """Nobody counts as heard before the next beat."""
        self._beaten_since = -inf
        self.quiet |= self._peers.keys()
        for peer in self._peers.values():
            peer.beat_at = peer.beat_before = -inf
