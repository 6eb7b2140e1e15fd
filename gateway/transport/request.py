"""A client's request for a socket, and the plain form of it that nearly every client writes.

What is written in any other way, though it may be as good, is left to aiohttp, which takes a quarter of a
millisecond for a request: nothing here has to know what to make of it.
"""

import re
from typing import Final, Protocol

import msgspec
from aiohttp import hdrs
from multidict import CIMultiDict, MultiDict, MultiMapping
from yarl import URL

MAX_HEADERS: Final = 64

_HEAD: Final = re.compile(
    rb"GET (/socket//?websocket/?)(?:\?([!\"$-~]*))? HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~]*\r\n)+)\r\n"
)
"""A request line and headers of visible ASCII (RFC 9112, sections 3 and 5)."""

_PAIR: Final = r"[0-9A-Za-z._~-]+=[0-9A-Za-z._~-]*"
_PLAIN_QUERY: Final = re.compile(rf"{_PAIR}(?:&{_PAIR})*")
"""A query in which nothing is escaped: tokens, ids and versions."""

_HOST: Final = re.compile(r"[0-9A-Za-z._:\[\]-]+")
_CONNECTION: Final = frozenset({"upgrade", "keep-alive, upgrade"})
_WITH_BODY: Final = (hdrs.CONTENT_LENGTH, hdrs.TRANSFER_ENCODING, hdrs.EXPECT)


class HandshakeRequest(Protocol):
    """What a handshake looks at; aiohttp's requests are such, too."""

    @property
    def method(self) -> str: ...
    @property
    def headers(self) -> MultiMapping[str]: ...
    @property
    def query(self) -> MultiMapping[str]: ...
    @property
    def host(self) -> str: ...
    @property
    def remote(self) -> str | None:
        """Address of the TCP peer."""


class UpgradeRequest(msgspec.Struct, frozen=True):
    """A request for a WebSocket, in the plain form.

    Attributes:
        size: Bytes it has.
    """

    method: str
    headers: MultiMapping[str]
    query: MultiMapping[str]
    host: str
    remote: str | None
    size: int


def read(data: bytes, most: int, remote: str | None) -> UpgradeRequest | None:
    """The request that bytes begin with; None if it is not all there, or is written otherwise.

    Args:
        most: Bytes it may have.
        remote: Address of the TCP peer.
    """
    found = _HEAD.match(data, 0, most)
    if found is None:
        return None
    path, query, lines = found.groups()
    headers: CIMultiDict[str] = CIMultiDict()
    for line in lines.decode("ascii").split("\r\n")[:-1]:
        name, _, value = line.partition(":")
        if name in headers or len(headers) == MAX_HEADERS:
            return None
        headers[name] = value.strip(" \t")
    host = headers.get(hdrs.HOST, "")
    if (
        not _HOST.fullmatch(host)
        or headers.get(hdrs.CONNECTION, "").lower() not in _CONNECTION
        or headers.get(hdrs.UPGRADE, "").lower() != "websocket"
        or any(name in headers for name in _WITH_BODY)
    ):
        return None
    text = query.decode() if query else ""
    params: MultiMapping[str]
    if _PLAIN_QUERY.fullmatch(text):
        params = MultiDict(
            [(name, value) for name, _, value in (pair.partition("=") for pair in text.split("&"))]
        )
    else:
        params = URL.build(path=path.decode(), query_string=text, encoded=True).query
    return UpgradeRequest(hdrs.METH_GET, headers, params, host, remote, found.end())
