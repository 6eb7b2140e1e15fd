"""Stores revocations in a bucket on the bus, so that they survive a stop of all replicas."""

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from gateway.auth.revocations import Revocation, decode, encode
from gateway.errors import BusUnavailable, NothingKept

CLOCKS_SECONDS: Final = 60.0
"""How much longer the bus keeps a revocation than it counts: clocks differ."""

_log = structlog.get_logger(__name__)


def bucket(prefix: str) -> str:
    """The bucket of the gateways that share a prefix."""
    return f"{prefix}_revocations"


class RevocationStore(Protocol):
    """Keeps values beyond the life of this process."""

    async def put(self, bucket: str, key: str, value: bytes, *, keep_seconds: float) -> None:
        """Keep a value; raises ``NothingKept`` or ``BusUnavailable``."""

    async def entries(self, bucket: str) -> dict[str, bytes]:
        """All kept values; raises ``NothingKept`` or ``BusUnavailable``."""


class KeptRevocations:
    """All revocations in a bucket.

    Args:
        keep_seconds: How long after its making a revocation may be needed.
        undecodable: Called for each value that this release cannot read.
    """

    def __init__(
        self,
        store: RevocationStore,
        bucket: str,
        *,
        keep_seconds: float,
        undecodable: Callable[[], None],
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._keep_seconds = keep_seconds + CLOCKS_SECONDS
        self._undecodable = undecodable

    async def keep(self, revocation: Revocation) -> bool:
        """Keep one; False if it should be kept and could not. Idempotent."""
        value = encode((revocation,))
        # By its content: of two replicas that write at once neither undoes what the other wrote.
        key = hashlib.sha256(value).hexdigest()
        try:
            await self._store.put(self._bucket, key, value, keep_seconds=self._keep_seconds)
        except NothingKept:
            return True
        except BusUnavailable as problem:
            _log.warning("a revocation is not kept yet", problem=str(problem))
            return False
        return True

    async def read(self) -> set[Revocation]:
        """All that are kept.

        Raises:
            NothingKept: There is no place for them.
            BusUnavailable: Nobody can say.
        """
        found: set[Revocation] = set()
        for value in (await self._store.entries(self._bucket)).values():
            try:
                found.update(decode(value))
            except ValueError:
                self._undecodable()
        return found
