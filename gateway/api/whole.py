"""Questions to one of several workers that are about all of them: passed on to their supervisor."""

import socket
from typing import Final

import aiohttp
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from gateway.api import operations as known

OF_THE_WHOLE: Final = (
    known.LIVEZ,
    known.READYZ,
    known.METRICS,
    known.START_DRAIN,
    known.GET_DRAIN,
    known.ABORT_DRAIN,
)
"""Operations whose answer is about the process on the internal port, which is that of all workers."""

_SECONDS: Final = aiohttp.ClientTimeout(total=20)


class Whole:
    """All workers, as one of them sees it.

    Args:
        path: The supervisor's Unix socket.
    """

    def __init__(self, path: str) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path, force_close=True), timeout=_SECONDS
        )

    def answer(self, handler: Handler) -> Handler:
        """What answers for all workers; and for this one, by its handler, who asks on its own socket."""

        async def answer(request: web.Request) -> web.StreamResponse:
            connection = request.get_extra_info("socket")
            if connection is not None and connection.family == socket.AF_UNIX:
                return await handler(request)
            return await self._pass_on(request)

        return answer

    async def close(self) -> None:
        """Ask nothing more."""
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.Response:
        key = request.headers.get(hdrs.AUTHORIZATION)
        try:
            async with self._session.request(
                request.method,
                f"http://supervisor{request.path_qs}",
                headers={} if key is None else {hdrs.AUTHORIZATION: key},
            ) as answer:
                return web.Response(
                    body=await answer.read(),
                    status=answer.status,
                    headers={
                        name: answer.headers[name]
                        for name in (hdrs.CONTENT_TYPE, hdrs.CACHE_CONTROL)
                        if name in answer.headers
                    },
                )
        except (aiohttp.ClientError, TimeoutError) as problem:
            raise web.HTTPServiceUnavailable from problem
