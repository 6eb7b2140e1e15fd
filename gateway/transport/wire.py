"""Writes to a client's TCP connection: to the kernel directly, and to the transport what that does not take.

Going through the transport for each write costs about as much again as all that fan-out itself does for it.
"""

import asyncio
import os


class SocketWire:
    """The sending side of one connection; all that is written to it has to be written here.

    While nothing waits in the transport, bytes go to its descriptor. What the kernel does not take, and all
    that comes after it, goes to the transport until that has got rid of it all: so none overtakes another.
    The transport also finds out, and says, what is wrong with a connection. Under TLS everything goes there.

    The transport's protocol has to call :meth:`resumed` and :meth:`lost`.

    Attributes:
        clear: Whether nothing waits, so that bytes go to the descriptor.
        transport: To read from.
    """

    __slots__ = ("_descriptor", "clear", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        socket = transport.get_extra_info("socket")
        plain = socket is not None and transport.get_extra_info("sslcontext") is None
        self._descriptor: int = socket.fileno() if plain else -1
        if plain:
            transport.set_write_buffer_limits(0)  # so that it says when nothing waits any more
        self.clear = plain and not transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Take bytes, in order; never waits.

        Raises:
            RuntimeError: The connection is gone (uvloop).
        """
        if self.clear:
            try:
                sent = os.write(self._descriptor, data)
            except OSError:  # no room, or a fault that the transport will meet as well
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.transport.write(data)
        self.resumed()  # there is no other call if the transport could send it at once

    def resumed(self) -> None:
        """The transport has sent what it had, perhaps."""
        self.clear = self._descriptor >= 0 and not self.transport.get_write_buffer_size()

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not got yet."""
        return 0 if self.clear else self.transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Whether nothing is sent any more."""
        return self.transport.is_closing()

    def close(self) -> None:
        """End when all is sent."""
        self.lost()
        self.transport.close()

    def abort(self) -> None:
        """Drop what was not sent, and end."""
        self.lost()
        self.transport.abort()

    def lost(self) -> None:
        """Use the descriptor no more: the connection ends, and the next client's may get its number."""
        self.clear = False
        self._descriptor = -1
