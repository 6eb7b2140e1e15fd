"""Counts what a stream is asked, as a listener on the same nats-server."""

import re
import socket
from collections import Counter
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from bench.wire import TIMEOUT_SECONDS, LoadError

_MESSAGE: Final = re.compile(rb"MSG \$JS\.API\.(\S+)\.GATEWAY \d+ (?:\S+ )?(\d+)\r\n")


class Questions:
    """Requests to JetStream about the gateways' stream; entering begins to listen.

    The server keeps them for the listener until it counts them, which takes no time from the others.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection(
            (address.hostname, address.port), timeout=TIMEOUT_SECONDS
        )

    def __enter__(self) -> Self:
        self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB $JS.API.> 1\r\n')
        self.count()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def count(self) -> Counter[str]:
        """What was asked since the last call, such as ``STREAM.INFO``, and how often."""
        self._socket.sendall(b"PING\r\n")
        data = b""
        parts = []
        while not data.endswith(b"PONG\r\n"):
            data = self._socket.recv(1 << 20)
            if not data:
                raise LoadError("nats-server has closed the connection")
            parts.append(data)
        return Counter(match[1].decode() for match in _MESSAGE.finditer(b"".join(parts)))
