"""A message for many sockets, and what the fan-out needs of a socket to write it."""

from typing import Protocol

import msgspec

from gateway.audience import Audience
from gateway.device import Device


class Broadcast(msgspec.Struct, frozen=True, gc=False):
    """One message for the members of a topic.

    Attributes:
        payload: A JSON object as the publisher wrote it, or any bytes when ``binary``.
        audience: Who gets it; None for everybody.
        position: Position after the message, as JSON, for members that resume; empty without history.
        reminder: Whether it says nothing but the position, and is for those members alone.
    """

    topic: str
    event: str
    payload: bytes
    binary: bool = False
    audience: Audience | None = None
    position: bytes = b""
    reminder: bool = False


class Encoding(Protocol):
    """The form a member gets broadcasts in; one object for all of a kind."""

    @property
    def positions(self) -> bool:
        """Whether messages come with their position."""

    def broadcast(self, message: Broadcast, *, shared: bool = True) -> bytes | None:
        """Bytes ready for the transport, headers included; None where this kind has no such form.

        Empty where this kind is not told of such a message.

        Args:
            shared: Whether they are for many members, and not for one or a few of them.
        """


class Wire(Protocol):
    """What carries bytes to one client."""

    @property
    def clear(self) -> bool:
        """Whether nothing waits for certain, and nobody need be asked how much it is."""

    def write(self, data: bytes, /) -> None:
        """Take bytes, in order; never waits.

        Raises:
            RuntimeError: The connection is gone and its owner was not told yet (uvloop).
        """

    def get_write_buffer_size(self) -> int:
        """Bytes that were taken and that the kernel has not got yet."""

    def is_closing(self) -> bool:
        """Whether nothing is sent any more."""

    def abort(self) -> None:
        """Drop what was not sent, and end."""


class Outlet(Protocol):
    """The sending side of one socket."""

    @property
    def wire(self) -> Wire:
        """Where its bytes go."""

    @property
    def id(self) -> str:
        """Id of the socket, as in :attr:`Audience.excluded_sessions`."""

    @property
    def user(self) -> str:
        """Whose it is; empty for an anonymous one."""

    @property
    def device(self) -> Device:
        """The device it is on."""

    def rejoin(self, topic: str, member: object) -> None:
        """Have the client join a topic again: there is something it cannot be sent.

        Args:
            member: Its membership that ends by this; nothing is done when that is another by now.
        """

    def overflowed(self) -> None:
        """The outbound bound was passed: the socket is closed as a slow consumer."""
