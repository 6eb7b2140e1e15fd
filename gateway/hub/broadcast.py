"""A message on its way to many sockets, and how each kind of socket wants it encoded."""

from typing import Protocol

import msgspec


class Broadcast(msgspec.Struct, frozen=True, gc=False):
    """One message for the members of a topic.

    Attributes:
        payload: A JSON object as the publisher wrote it, or any bytes when ``binary``.
        excluded: Ids of sockets that must not get it.
    """

    topic: str
    event: str
    payload: bytes
    binary: bool = False
    excluded: frozenset[str] = frozenset()


class Encoding(Protocol):
    """The form a socket gets broadcasts in; one object for all sockets of a kind."""

    def broadcast(self, message: Broadcast) -> bytes | None:
        """Bytes ready for the transport, headers included; None where this kind has no such form."""


class Outlet(Protocol):
    """The sending side of one socket."""

    @property
    def id(self) -> str:
        """Id of the socket, as in :attr:`Broadcast.excluded`."""

    @property
    def encoding(self) -> Encoding:
        """How broadcasts are encoded for it."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport; never waits. Bytes leave in the order written.

        Raises:
            RuntimeError: The connection is gone and its owner was not told yet (uvloop).
        """

    def buffered(self) -> int:
        """Bytes that were written and not yet taken by the kernel."""

    def overflowed(self) -> None:
        """The outbound bound was passed: the socket is closed as a slow consumer."""
