"""When users were last seen: in memory, and where the bus keeps values, there for all replicas.

Of a user who is there nothing has to be known: she is seen now. So what is written is that she has left;
and once an hour that she stays, for whoever asks after this replica was killed.
"""

import asyncio
import base64
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, Protocol

import structlog

from gateway.errors import BusUnavailable
from gateway.log import Throttle, background_error

MOST_USERS: Final = 100_000
"""Users remembered at most; those seen longest ago are forgotten."""

TURN_SECONDS: Final = 1.0
"""Time between two writes; a user seen several times meanwhile is written once."""

WRITES_AT_ONCE: Final = 20
"""Users whose writing is under way at a time: each takes some KiB until it is answered."""

WRITES_IN_A_ROW: Final = 500
"""Users written between two pauses: a crowd that reconnects must not hold up messages."""

LOOK_TURNS: Final = 20
"""After so many turns a part of the users who stay is written, in case this replica is killed."""

PARTS: Final = 180
"""Parts of those users: so each is written once an hour, and never all at once."""

LONGEST_PAUSE_TURNS: Final = 60
"""
Turns without writing after the store took nothing at all: one at first, then twice as many each time.

What is not written stays in memory meanwhile, among :data:`MOST_USERS`.
"""

TOLD_SECONDS: Final = 60.0
"""How often the log says at most whether the store takes anything."""

KEEP_SECONDS: Final = 30 * 86_400
"""How long the store keeps the time of a user who is not seen again."""

_log = structlog.get_logger(__name__)


class SeenStore(Protocol):
    """Keeps values beyond the life of this process."""

    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None:
        """Keep a value; raises ``BusUnavailable``."""

    async def get(self, bucket: str, key: str) -> bytes | None:
        """A kept value; raises ``BusUnavailable``."""


class LastSeen:
    """The times of this replica's users.

    Args:
        bucket: Where the store keeps them.
        clock: Unix seconds.
    """

    def __init__(self, store: SeenStore, bucket: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._bucket = bucket
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._unwritten: dict[str, None] = {}  # all of them are in _seen
        self._turns = 0
        self._pause = self._paused = 0
        self._kept = True
        self._throttle = Throttle(TOLD_SECONDS)

    def seen(self, user: str, when: float) -> None:
        """A user was there, and has not been since, as far as this replica knows.

        Args:
            when: Unix seconds.
        """
        self._seen.pop(user, None)  # so that the dict stays in the order of time
        self._seen[user] = when
        self._unwritten[user] = None
        if len(self._seen) > MOST_USERS:
            oldest = next(iter(self._seen))
            del self._seen[oldest]
            self._unwritten.pop(oldest, None)

    def known(self, user: str) -> float:
        """Unix seconds; 0 for a user this replica does not remember."""
        return self._seen.get(user, 0.0)

    async def kept(self, user: str) -> float | None:
        """Unix seconds as some replica wrote them; 0 where none did, None where the store cannot say."""
        try:
            value = await self._store.get(self._bucket, _key(user))
            return float(value) if value else 0.0
        except (BusUnavailable, ValueError):
            return None

    async def next_turn(self, present: Callable[[], Iterable[str]]) -> None:
        """Wait for the next turn, and write what is new.

        Args:
            present: The users who have sessions here.
        """
        await asyncio.sleep(TURN_SECONDS)
        self._turns += 1
        if self._turns % LOOK_TURNS == 0:
            self._look(present)
        if self._paused:
            self._paused -= 1
        else:
            await self.write()

    def _look(self, present: Callable[[], Iterable[str]]) -> None:
        """Have those written whose turn it is; hashes of texts differ from one process to the next."""
        now, part = self._clock(), self._turns // LOOK_TURNS % PARTS
        for user in present():
            if hash(user) % PARTS == part:
                self.seen(user, now)

    async def write(self) -> None:
        """Write some of what is new, the oldest first."""
        for _ in range(0, WRITES_IN_A_ROW, WRITES_AT_ONCE):
            if not await self._write_some():
                return

    async def finish(self) -> None:
        """Write all that is new, unless the store takes nothing."""
        while await self._write_some():
            pass

    async def _write_some(self) -> bool:
        """Write a few; False when there is no more to be written now."""
        users = list(islice(self._unwritten, WRITES_AT_ONCE))
        if not users:
            return False
        for user in users:
            del self._unwritten[user]
        written = await asyncio.gather(*(self._write(user, self._seen[user]) for user in users))
        for user, done in zip(users, written, strict=True):
            if not done and user in self._seen:  # else forgotten meanwhile
                self._unwritten[user] = None  # behind the others: it may be at fault itself
        self._pause = 0 if any(written) else min(2 * self._pause or 1, LONGEST_PAUSE_TURNS)
        self._paused = self._pause
        self._tell(all(written))
        return any(written)

    async def _write(self, user: str, when: float) -> bool:
        value = repr(when).encode()
        try:
            await self._store.put(self._bucket, _key(user), value, keep_seconds=KEEP_SECONDS)
        except BusUnavailable:
            return False
        except Exception as problem:  # noqa: BLE001 -- of one user or of the store; the others go on
            background_error("last_seen", problem)
            return False
        return True

    def _tell(self, kept: bool) -> None:
        if kept is not self._kept and self._throttle.admit("kept") is not None:
            self._kept = kept
            _log.info("last_seen_at is kept", on_the_bus=kept)


def _key(user: str) -> str:
    """A user as a key: letters, digits, ``_``, ``-`` and ``=``."""
    return base64.urlsafe_b64encode(user.encode("utf-8", "surrogatepass")).decode()
