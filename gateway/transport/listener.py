"""Opens the TCP sockets that clients connect to, and counts who has come."""

import errno
import os
import socket
from typing import Final

import structlog

from gateway.log import QUIET_SECONDS, Throttle
from gateway.metrics import Metrics

NOTSENT_LOWAT_BYTES: Final = 65_536
"""
Unsent bytes the kernel keeps for one client before it stops taking more.

Without it a client that stopped reading leaves megabytes in the kernel before the outbound bound sees
anything. Accepted sockets inherit it from the listening one.
"""

BACKLOG: Final = 4096
"""Clients that may wait to be accepted: a crowd that reconnects at once. The kernel has its own cap."""

FULL: Final = "descriptor_limit"
"""Reason, in metric, log and readiness, where clients have all the descriptors that are for them."""

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})

_log = structlog.get_logger(__name__)

_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)


class Descriptors:
    """The TCP connections of the public listener, each of which costs the process a descriptor.

    What is kept back from them is for the bus, the internal listener and callbacks: a replica that clients
    have taken the last descriptor of could neither say so nor get back on the bus.

    Args:
        most: How many there may be.

    Attributes:
        open: How many there are, those included that are closed and not gone yet.
    """

    def __init__(self, most: int, metrics: Metrics) -> None:
        self.open = 0
        self._most = most
        self._refused = metrics.connects.labels("refused", FULL)
        self._exhausted = metrics.descriptors_exhausted
        self._none_left = False
        self._throttle = Throttle(QUIET_SECONDS)

    @property
    def full(self) -> bool:
        """Whether the next one is to be refused."""
        return self.open >= self._most

    def doubt(self) -> str | None:
        """Why new clients should go elsewhere; None while there is room."""
        return FULL if self.full or self._none_left else None

    def refused(self) -> None:
        """Count and log that a client was refused."""
        self._refused.inc()
        if (held := self._throttle.admit(FULL)) is not None:
            _log.warning(
                "clients have all descriptors that are for them; allow the process more open files",
                reason=FULL,
                most=self._most,
                held=held,
            )

    def look(self) -> None:
        """Find out whether there is any descriptor left, and say so if not; to be done once a second.

        Where there is none libuv closes new connections, whichever listener they came to, and tells nobody.
        """
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as problem:
            self._none_left = problem.errno in _EXHAUSTED
            if self._none_left:
                self._exhausted.inc()
                if (held := self._throttle.admit("exhausted")) is not None:
                    _log.error("no descriptor is left", problem=problem.strerror, held=held)
        else:
            self._none_left = False


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
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted sockets inherit it
    listener.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
    listener.setblocking(False)
    return listener
