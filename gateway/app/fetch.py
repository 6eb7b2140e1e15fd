"""Fetches a small JSON document by HTTP, with bounds on its size and time: the key set of tokens."""

from typing import Final

import aiohttp
from aiohttp import hdrs

from gateway.errors import FetchError

MAX_BYTES: Final = 256 * 1024
"""Longest answer; key sets have a few KiB."""

TIMEOUT_SECONDS: Final = 5.0
"""From the name look-up to the last byte."""

_HEADERS: Final = {
    hdrs.ACCEPT: "application/json",
    # a compressed answer could be a thousand times as long as what was read of it
    hdrs.ACCEPT_ENCODING: "identity",
}


async def fetch(url: str) -> bytes:
    """The body of the answer to a GET, which must be a 200 at that very address.

    Raises:
        FetchError: It is none, too long or too late.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
            # whoever can make the provider redirect must not choose whose keys are trusted
            session.get(url, headers=_HEADERS, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise FetchError(f"the answer is HTTP {response.status}")
            return await _body(response.content)
    except TimeoutError:
        raise FetchError(f"no answer within {TIMEOUT_SECONDS:g} seconds") from None
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        cause = getattr(problem, "os_error", problem)
        words = getattr(cause, "strerror", None) or type(problem).__name__
        raise FetchError(f"no connection: {words}") from None


async def _body(stream: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in stream.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            raise FetchError(f"the answer is longer than {MAX_BYTES} bytes")
    return bytes(body)
