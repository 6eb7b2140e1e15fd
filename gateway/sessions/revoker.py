"""Revokes tokens on all replicas, and learns what was revoked elsewhere.

A revocation is in force here at once, and then its sockets are closed, some in each turn. The others are
asked to carry it out, so that the answer can say what was closed; then all replicas are told, as there may
be one that is not known to be alive; and where the bus keeps values it is kept. Everything may happen twice:
what is known already changes nothing.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Protocol

import structlog

from gateway.auth.revocations import Revocation, Revocations, decode, encode
from gateway.cluster import Cluster, Cover
from gateway.errors import BusError, BusUnavailable, NothingKept
from gateway.sessions.commands import ListRevoked, Revoke
from gateway.sessions.kept_revocations import KeptRevocations

AGAIN_SECONDS: Final = 0.5
"""Time between two tries to read what the bus keeps, or to ask who did not answer."""

LOOK_SECONDS: Final = 1.0
"""Time between two looks for replicas that appeared, and for others to tell."""

KEEP_AGAIN_SECONDS: Final = 5.0
"""Time between two tries to have the bus keep what it lacks."""

ASKS: Final = 5
"""
How often a replica is asked until it answers.

That is more than the few seconds of a stall, and yet an end: one of an earlier release never answers.
"""

KEEPS_IN_A_ROW: Final = 200
"""Revocations written to the bus between two of those."""

TOLD_AT_ONCE: Final = 8
"""Revocations of one message: less than any bus carries, whatever their 255 bytes of a name."""

_log = structlog.get_logger(__name__)


class BusState(Protocol):
    """As much of the bus as matters here."""

    @property
    def connected(self) -> bool:
        """Whether others can be told."""


class Revoker:
    """One replica's part in it.

    Args:
        close_revoked: Closes the sockets here whose tokens are revoked; returns how many.
    """

    def __init__(
        self,
        revocations: Revocations,
        cluster: Cluster,
        bus: BusState,
        kept: KeptRevocations,
        *,
        close_revoked: Callable[[], Awaitable[int]],
    ) -> None:
        self._revocations = revocations
        self._cluster = cluster
        self._bus = bus
        self._kept = kept
        self._close_revoked = close_revoked
        self._closing: set[asyncio.Task[int]] = set()
        self._known = False  # what others revoked while this replica could not hear them
        self._unread = ""  # why what the bus keeps could not be read the last time
        self._cuts = 0
        self._again = asyncio.Event()
        self._asks: dict[str, int] = {}  # of each other replica; all of them once it has answered
        # Something that is known here may not be known to the others, or not to the bus.
        self._untold = False
        self._unkept = False
        self._keep_at = 0.0

    def doubt(self) -> str | None:
        """Why this replica cannot say which tokens are revoked; None if it can."""
        return None if self._known else "revocations_unknown"

    async def revoke(self, revocation: Revocation) -> tuple[int, Cover]:
        """Refuse tokens everywhere and close their sockets.

        Returns:
            How many sockets were closed, and whether all replicas took part, those that start later
            included: it is not complete either if the bus could not keep it.

        Raises:
            BusUnavailable: It is in force here alone. The others learn of it when the bus is back.
        """
        closing = self._heard((revocation,))
        if not self._bus.connected:
            self._untold = self._unkept = True
            await closing
            raise BusUnavailable("the others cannot be told")
        asking = self._cluster.call(Revoke(revocation), self._cluster.others)
        others, kept = await asyncio.gather(asking, self._kept.keep(revocation))
        # Last, so that a replica that starts now either hears this or finds it on the bus.
        told = self._tell((revocation,))
        self._untold |= not told
        self._unkept |= not kept
        complete = others.cover.complete and kept and told
        return await closing + sum(others.values), Cover(others.cover.missing, complete)

    async def learn(self) -> None:
        """Find out what was revoked without this replica; returns when it is known.

        What the bus keeps has to be read, however long that takes. Where it keeps nothing the other
        replicas are all there is; one that does not answer is given up after :data:`ASKS`.
        """
        cuts, on_bus, complained = -1, None, False
        while True:
            if cuts != self._cuts:
                cuts, on_bus = self._cuts, None
                self._asks.clear()
            self._tell_untold()
            asked = await self._ask_the_new()
            if on_bus is None:
                on_bus = await self._read()
            if cuts == self._cuts and (on_bus or (asked and on_bus is not None)):
                break
            if on_bus is None and not complained:
                complained = True
                _log.warning(
                    "cannot read what was revoked; will try until that succeeds",
                    problem=self._unread,
                )
            await asyncio.sleep(AGAIN_SECONDS)
        self._known = True

    def learn_again(self) -> None:
        """The bus was away, so others may have said what was not heard here."""
        self._known = False
        self._cuts += 1
        self._keep_at = 0.0
        self._again.set()

    async def next_look(self) -> None:
        """Wait for the next look: learn if that is needed, and spread what could not be spread."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._again.wait(), LOOK_SECONDS)
        await self._look()

    async def _look(self) -> None:
        self._again.clear()
        self._tell_untold()
        if self._cuts and not self._known:
            await self.learn()
        if self._known:
            # They may have been there all the time, behind a cut between servers that nobody noticed.
            await self._ask_the_new()
        now = asyncio.get_running_loop().time()
        if self._unkept and now >= self._keep_at:
            self._keep_at = now + KEEP_AGAIN_SECONDS
            self._unkept = False
            if not await self._keep_what_lacks():
                self._unkept = True

    def revoke_here(self, command: Revoke) -> Awaitable[int]:
        """Refuse tokens on this replica from now on; returns how many sockets are closed for it."""
        return self._heard((command.revocation,))

    def list_here(self, _: ListRevoked) -> tuple[Revocation, ...]:
        """What this replica refuses."""
        return tuple(self._revocations.all())

    def told(self, data: bytes) -> None:
        """Another replica tells, or this one, what is revoked.

        Raises:
            ValueError: This release cannot read it.
        """
        self._heard(decode(data))

    def _heard(self, revocations: Iterable[Revocation]) -> Awaitable[int]:
        """Put revocations in force at once; returns how many sockets are closed for it."""
        in_order = sorted(revocations, key=lambda each: each.issued_before)
        new = sum(self._revocations.add(each) for each in in_order)
        closing = asyncio.create_task(self._close_sockets(new))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return closing

    async def _close_sockets(self, new: int) -> int:
        if not new:
            return 0
        closed = await self._close_revoked()
        _log.info("tokens revoked", revocations=new, closed=closed)
        return closed

    def _tell_untold(self) -> None:
        if self._untold:
            self._untold = False
            if not self._tell(self._revocations.all()):
                self._untold = True

    def _tell(self, revocations: Sequence[Revocation]) -> bool:
        """Tell all replicas; False when they could not be told."""
        try:
            for start in range(0, len(revocations), TOLD_AT_ONCE):
                self._cluster.revoke(encode(revocations[start : start + TOLD_AT_ONCE]))
        except BusError:
            return False
        return True

    async def _ask_the_new(self) -> bool:
        """Put in force what replicas refuse that have not said so; False if one has to be asked again."""
        live = self._cluster.others
        self._asks = {replica: asks for replica, asks in self._asks.items() if replica in live}
        new = {replica for replica in live if self._asks.get(replica, 0) < ASKS}
        if not new:
            return True
        others = await self._cluster.call(ListRevoked(), new)
        self._heard([each for known in others.values for each in known])
        for replica in new:
            self._asks[replica] = self._asks.get(replica, 0) + 1
            if replica in others.by_replica:
                self._asks[replica] = ASKS
            elif self._asks[replica] == ASKS:
                _log.warning("a replica does not say what it refuses", other=replica)
        return all(self._asks[replica] == ASKS for replica in new)

    async def _read(self) -> bool | None:
        """Put in force what the bus keeps; False if it has no place for it, None if nobody can say."""
        try:
            lacking = await self._compare()
        except NothingKept:
            return False
        except BusUnavailable as problem:
            self._unread = str(problem)
            return None
        self._unkept |= bool(lacking)
        return True

    async def _compare(self) -> list[Revocation]:
        """Put in force what the bus keeps; returns what it lacks.

        Raises:
            BusUnavailable: Nobody can say.
        """
        kept = await self._kept.read()
        self._heard(kept)
        return [each for each in self._revocations.all() if each not in kept]

    async def _keep_what_lacks(self) -> bool:
        """Write to the bus what it failed to keep, or lost; False if some of it is to be written yet."""
        try:
            lacking = await self._compare()
        except NothingKept:
            return True
        except BusUnavailable:
            return False
        for revocation in lacking[:KEEPS_IN_A_ROW]:
            if not await self._kept.keep(revocation):
                return False
        return len(lacking) <= KEEPS_IN_A_ROW
