"""Opens the TCP sockets that clients connect to."""

import socket
from typing import Final

NOTSENT_LOWAT_BYTES: Final = 65_536
"""
Unsent bytes the kernel keeps for one client before it stops taking more.

Without it a client that stopped reading leaves megabytes in the kernel before the outbound bound sees
anything. Accepted sockets inherit it from the listening one.
"""

BACKLOG: Final = 4096
"""Clients that may wait to be accepted: a crowd that reconnects at once. The kernel has its own cap."""

_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


def open_listener(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening TCP socket.

    Args:
        host: Name or address; ``0.0.0.0`` and ``::`` listen on all interfaces.
        port: 0 for a free one.
        reuse_port: Let other processes listen on the same port; the kernel spreads clients over them.

    Raises:
        OSError: The address cannot be listened on.
    """
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.create_server(
        (host, port), family=family, backlog=BACKLOG, reuse_port=reuse_port
    )
    listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
    listener.setblocking(False)
    return listener
