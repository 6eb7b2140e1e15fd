"""What pages of other hosts may read (Fetch standard, CORS): everything, as Origin says who may connect."""

from typing import Final

from aiohttp import hdrs, web

CORS: Final[dict[str, str]] = {hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*"}


def preflight(request: web.Request, methods: str) -> web.Response:
    """What a browser asks before it sends a page's request to another host."""
    wanted = ", ".join(request.headers.getall(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ()))
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: wanted if wanted.isascii() else "",
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: methods,
        hdrs.ACCESS_CONTROL_MAX_AGE: "3600",
    }
    return web.Response(headers=CORS | headers)
