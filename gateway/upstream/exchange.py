"""Posts requests to a backend over kept connections; here alone do callbacks touch aiohttp."""

import io
from collections.abc import Mapping
from typing import Final

from aiohttp import (
    ClientError,
    ClientPayloadError,
    ClientResponse,
    ClientResponseError,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from yarl import URL

from gateway import __version__
from gateway.errors import UpstreamUnavailable

MAX_ANSWER_BYTES: Final = 1024 * 1024

KEEP_SECONDS: Final = 1.5
"""
How long an idle connection is kept.

Shorter than servers keep theirs, gunicorn with its 2 seconds among them: a callback written to a
connection that the server is just closing would fail, and could not be repeated, as nobody knows
whether it was acted on.
"""

_LARGE_BODY_BYTES: Final = 1024 * 1024
"""Bodies above are written in pieces: aiohttp writes bytes in one go, and warns of those."""

_FIXED_HEADERS: Final = {
    "user-agent": f"gateway/{__version__}",
    "accept": "application/json",
    # Answers are short; and one that is compressed could be far larger than it says.
    "accept-encoding": "identity",
}


class HttpExchange:
    """Posts callbacks; to be made within a running event loop.

    Nothing comes from the environment (proxies, .netrc), no cookie is kept and no redirect followed:
    callbacks go where the configuration says, and nowhere else.

    Args:
        connections: Most connections at a time.
    """

    def __init__(self, connections: int) -> None:
        self._session = ClientSession(
            connector=TCPConnector(limit=connections, keepalive_timeout=KEEP_SECONDS),
            cookie_jar=DummyCookieJar(),
            headers=_FIXED_HEADERS,
            # The caller has one deadline for all of it.
            timeout=ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            auto_decompress=False,
            trust_env=False,
        )

    async def post(self, url: URL, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """Send a body; returns the answer's status and body.

        The body of an answer that is no success is empty if it is above :data:`MAX_ANSWER_BYTES`.

        Raises:
            UpstreamUnavailable: ``unreachable``, or ``answer`` when it is no HTTP, breaks off or is above
                :data:`MAX_ANSWER_BYTES`.
        """
        data = body if len(body) <= _LARGE_BODY_BYTES else io.BytesIO(body)
        if self._session.closed:
            raise UpstreamUnavailable("unreachable", "closed")
        try:
            response = await self._session.post(
                url, data=data, headers=headers, allow_redirects=False
            )
            answer = await _read(response)
        except (ClientPayloadError, ClientResponseError) as problem:
            raise UpstreamUnavailable("answer", _describe(problem)) from None
        except (ClientError, OSError) as problem:
            raise UpstreamUnavailable("unreachable", _describe(problem)) from None
        if answer is None and 200 <= response.status < 300:
            raise UpstreamUnavailable("answer", f"above {MAX_ANSWER_BYTES} bytes")
        return response.status, answer or b""

    async def close(self) -> None:
        """Close all connections; what is under way fails as ``unreachable``."""
        await self._session.close()


async def _read(response: ClientResponse) -> bytes | None:
    """The body; None when it is too long. Its connection is free afterwards, or closed."""
    length = response.content_length
    if length is not None and length > MAX_ANSWER_BYTES:
        response.close()
        return None
    pieces: list[bytes] = []
    size = 0
    try:
        while piece := await response.content.readany():
            size += len(piece)
            if size > MAX_ANSWER_BYTES:
                response.close()
                return None
            pieces.append(piece)
    except BaseException:
        response.close()
        raise
    return b"".join(pieces)


def _describe(problem: Exception) -> str:
    """What went wrong, without the texts of others, which quote headers and bodies."""
    name = type(problem).__name__
    reason = problem.strerror if isinstance(problem, OSError) else None
    return f"{name} ({reason})" if reason else name
