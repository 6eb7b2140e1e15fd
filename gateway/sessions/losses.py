"""Decides which replica tells the backend of one that ended without a farewell. Pure."""

from collections.abc import Iterable
from typing import Final

from gateway.tracker.effects import Lost
from gateway.tracker.peers import Peers

REMEMBERED: Final = 100
"""Losses remembered at most: each is asked about within seconds, by replicas that noticed it as well."""


class Losses:
    """The losses one replica noticed.

    Args:
        peers: The other replicas that are alive.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._known: dict[tuple[str, int], None] = {}
        self._told: dict[str, int] = {}
        self.untold: list[Lost] = []

    def noticed(self, lost: Lost) -> None:
        """Another replica is gone."""
        self._known[lost.replica, lost.incarnation] = None
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        self.untold.append(lost)

    def knows(self, replica: str, incarnation: int) -> bool:
        """Whether this replica knows that run, so that it tells of its loss, or will notice it."""
        peer = self._peers.get(replica)
        return (replica, incarnation) in self._known or (
            peer is not None and peer.incarnation == incarnation
        )

    def settled(self, lost: Lost, others: Iterable[bool]) -> bool:
        """Those before this one said whether they know that run; returns whether to tell of the loss."""
        self.untold.remove(lost)
        if any(others):
            return False
        self._told.pop(lost.replica, None)
        self._told[lost.replica] = lost.incarnation
        if len(self._told) > REMEMBERED:
            del self._told[next(iter(self._told))]
        return True

    def returned(self) -> list[str]:
        """Replicas that are alive though the backend was told of their loss."""
        return [
            replica
            for replica, incarnation in self._told.items()
            if (peer := self._peers.get(replica)) is not None and peer.incarnation == incarnation
        ]

    def welcomed(self, replica: str) -> None:
        """A replica that returned knows what the backend was told."""
        del self._told[replica]
