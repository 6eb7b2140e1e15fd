"""Takes a connection over from aiohttp, which then frees all it has of it."""

from typing import Any, Final, cast

from aiohttp import web


def take_over(request: web.Request) -> bytes:
    """Have aiohttp be done with a request's connection, whose transport gets another protocol after this.

    Returns:
        What came right behind the request.
    """
    handler, behind = request.protocol, _Behind()
    handler.set_parser(cast("Any", behind))
    # To aiohttp the connection is lost, so it frees all it has of it. It would also close the transport;
    # there is no call to prevent that, so its attribute, which has a public name, is set.
    handler.transport = None
    handler.connection_lost(None)
    return behind.data


class _Answered(web.StreamResponse):
    """An answer that is written already: aiohttp's own would take as long as all else of a handshake."""

    async def prepare(self, _: web.BaseRequest) -> None:
        """Nothing is left to do."""

    async def write_eof(self, _: bytes = b"") -> None:
        """Nothing is left to do."""


ANSWERED: Final = _Answered()
"""What a handler returns after it."""


class _Behind:
    """Takes from aiohttp the bytes that came right behind a request."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """As aiohttp's own reader has it: nothing ends here, and nothing is left."""
        self.data += data
        return False, b""

    def feed_eof(self) -> None: ...
