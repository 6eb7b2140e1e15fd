"""Live fragments in a page: ``live.js`` and the phoenix package it imports, which lie beside each other.

``phoenix.mjs`` is the file of the npm package phoenix 1.8.16 as it was published; its licence goes with it.
"""

import asyncio
import gzip
import hashlib
from functools import cache, partial
from pathlib import Path
from typing import Final

from aiohttp import ETag, hdrs, web

NAMES: Final = ("live.js", "phoenix.mjs")

SEND_SECONDS: Final = 15
"""How long a client may take to read a file; who does not would keep its connection."""

_HEADERS: Final = {
    # public code, which pages of all origins import as a module
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    hdrs.CACHE_CONTROL: "public, max-age=300",
    hdrs.VARY: hdrs.ACCEPT_ENCODING,
}


def routes(prefix: str = "") -> list[web.RouteDef]:
    """Serve the files below a path, to ``GET`` and ``HEAD``.

    The page's socket is beside them, at ``<prefix>/socket/websocket``, unless the page says otherwise.
    """
    return [web.get(f"{prefix}/{name}", partial(_send, name)) for name in NAMES]


@cache
def source(name: str) -> bytes:
    """A file of :data:`NAMES` as it is served."""
    folder = Path(__file__).parent
    body = (folder / name).read_bytes()
    if name == "phoenix.mjs":
        return b"/*\n%b*/\n%b" % ((folder / "phoenix.LICENSE.md").read_bytes(), body)
    return body


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(source(name), mtime=0)


@cache
def _etag(name: str) -> str:
    return hashlib.sha256(source(name)).hexdigest()[:16]


async def _send(name: str, request: web.Request) -> web.StreamResponse:
    etag = _etag(name)
    if any(known.value in {etag, "*"} for known in request.if_none_match or ()):
        response = web.Response(status=304, headers=_HEADERS)
    else:
        packed = "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "")
        response = web.Response(
            body=_compressed(name) if packed else source(name),
            content_type="text/javascript",
            charset="utf-8",
            headers=_HEADERS | ({hdrs.CONTENT_ENCODING: "gzip"} if packed else {}),
        )
    response.etag = ETag(etag, is_weak=True)  # the same for both encodings
    await response.prepare(request)
    transport = request.transport
    if transport is None or transport.is_closing():
        return response
    transport.set_write_buffer_limits(0)  # so that the end is when the kernel has it all
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await response.write_eof()
    except TimeoutError:
        transport.abort()
    else:
        transport.set_write_buffer_limits()
    return response
