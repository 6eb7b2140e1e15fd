"""When users were last seen: in memory, and where the bus keeps values, there for all replicas."""

import asyncio
import base64
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, Protocol

import structlog

from gateway.errors import BusUnavailable

MOST_USERS: Final = 100_000
"""Users remembered at most; those seen longest ago are forgotten."""

WRITE_SECONDS: Final = 1.0
"""Time between two writes; a user seen several times meanwhile is written once."""

WRITES_AT_ONCE: Final = 20
"""Users whose writing is under way at a time: each takes some KiB until it is answered."""

WRITES_IN_A_ROW: Final = 500
"""Users written between two pauses: a crowd that reconnects must not hold up messages."""

PRESENT_SECONDS: Final = 300.0
"""How often users who stay are written."""

KEEP_SECONDS: Final = 30 * 86_400
"""How long the store keeps the time of a user who is not seen again."""

_log = structlog.get_logger(__name__)


class Store(Protocol):
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

    def __init__(self, store: Store, bucket: str, clock: Callable[[], float]) -> None:
        self._store = store
        self._bucket = bucket
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._unwritten: dict[str, None] = {}
        self._kept = True

    def seen(self, user: str) -> None:
        """A user is there now, or was until now."""
        self._seen.pop(user, None)  # so that the dict stays in the order of time
        self._seen[user] = self._clock()
        self._unwritten[user] = None
        if len(self._seen) > MOST_USERS:
            oldest = next(iter(self._seen))
            del self._seen[oldest]
            self._unwritten.pop(oldest, None)

    def known(self, user: str) -> float:
        """Unix seconds; 0 for a user this replica does not remember."""
        return self._seen.get(user, 0.0)

    async def kept(self, user: str) -> float:
        """Unix seconds as some replica wrote them; 0 where nothing is known or can be."""
        try:
            value = await self._store.get(self._bucket, _key(user))
            return float(value) if value else 0.0
        except (BusUnavailable, ValueError):
            return 0.0

    async def run(self, present: Callable[[], Iterable[str]]) -> None:
        """Write what is new, for ever.

        Args:
            present: The users who have sessions here.
        """
        again_at = self._clock() + PRESENT_SECONDS
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            if self._clock() >= again_at:
                again_at = self._clock() + PRESENT_SECONDS
                for user in present():
                    self.seen(user)
            await self.write()

    async def finish(self) -> None:
        """Write all that is new."""
        while self._unwritten:
            await self.write()

    async def write(self) -> None:
        """Write some of what is new; what cannot be written is kept in memory alone."""
        for _ in range(0, WRITES_IN_A_ROW, WRITES_AT_ONCE):
            users = list(islice(self._unwritten, WRITES_AT_ONCE))
            if not users:
                return
            for user in users:
                del self._unwritten[user]
            kept = all(await asyncio.gather(*map(self._write, users)))
            if kept is not self._kept:
                self._kept = kept
                _log.info("last_seen_at is kept", on_the_bus=kept)

    async def _write(self, user: str) -> bool:
        value = repr(self._seen[user]).encode()
        try:
            await self._store.put(self._bucket, _key(user), value, keep_seconds=KEEP_SECONDS)
        except BusUnavailable:
            return False
        return True


def _key(user: str) -> str:
    """A user as a key: letters, digits, ``_``, ``-`` and ``=``."""
    return base64.urlsafe_b64encode(user.encode("utf-8", "surrogatepass")).decode()
