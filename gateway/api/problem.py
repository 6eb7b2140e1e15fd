"""Answers errors with problem documents (RFC 9457): their kinds, and the exception that carries one."""

import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Final

import msgspec
import structlog
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import ContentEncodingError
from aiohttp.typedefs import Handler, Middleware
from msgspec import Meta

MEDIA_TYPE: Final = "application/problem+json"

RETRY_AFTER_SECONDS: Final = 1
"""
When to try again while the bus is down.

A replica that lost its server looks for another within a second; a longer wait helps nobody, as a
refused publish costs the gateway next to nothing.
"""

ENCODINGS: Final = ("identity", "gzip", "deflate")
"""Of the bodies of requests."""

_log = structlog.get_logger(__name__)


class Kind(msgspec.Struct, frozen=True):
    """One kind of problem; ``docs/api.md`` has a table of all.

    Attributes:
        slug: Stable name, the end of the problem's ``type``.
        headers: Sent with every answer of the kind.
    """

    slug: str
    status: int
    title: str
    headers: Mapping[str, str] = {}

    @property
    def type(self) -> str:
        """The URI that identifies the kind."""
        return f"urn:gateway:problem:{self.slug}"


UNREADABLE: Final = Kind("unreadable", 400, "The body cannot be read")
UNAUTHORIZED: Final = Kind(
    "unauthorized",
    401,
    "A valid API key is needed",
    {"WWW-Authenticate": 'Bearer realm="gateway"'},  # RFC 9110, 15.5.2: a 401 must name a scheme
)
FORBIDDEN: Final = Kind("missing-scope", 403, "The API key lacks a scope")
NOT_FOUND: Final = Kind("not-found", 404, "There is nothing here")
METHOD_NOT_ALLOWED: Final = Kind("method-not-allowed", 405, "The method is not allowed here")
TOO_SLOW: Final = Kind("too-slow", 408, "The body took too long")
ENDING: Final = Kind("ending", 409, "The replica is about to end")
TOO_LARGE: Final = Kind("too-large", 413, "Larger than allowed")
UNSUPPORTED_MEDIA_TYPE: Final = Kind("unsupported-media-type", 415, "The body is not JSON")
INVALID: Final = Kind("invalid", 422, "The request is not valid")
RESERVED: Final = Kind("reserved-name", 422, "The name belongs to the protocol")
UNMATCHED: Final = Kind("unmatched-topic", 422, "The topic matches no channel rule")
TOO_MANY_TAILS: Final = Kind("too-many-tails", 429, "As many tails are open as may be")
INTERNAL: Final = Kind("internal", 500, "The gateway failed")
BUSY: Final = Kind("busy", 503, "Too much is being read", {"Retry-After": "1"})
DRAINED: Final = Kind(
    "drained", 503, "The replica has moved its clients away", {"Retry-After": "1"}
)
BUS_UNAVAILABLE: Final = Kind(
    "bus-unavailable", 503, "The bus is unavailable", {"Retry-After": str(RETRY_AFTER_SECONDS)}
)
OUTCOME_UNKNOWN: Final = Kind(
    "outcome-unknown", 504, "It was sent, and nobody knows whether it was stored"
)

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_OF_AIOHTTP: Final = {404: NOT_FOUND, 405: METHOD_NOT_ALLOWED, 413: TOO_LARGE}


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field."""

    field: Annotated[
        str,
        Meta(
            description="Where: `topics[2]`, a header's name, or `body` for the whole.",
            examples=["topic"],
        ),
    ]
    message: Annotated[str, Meta(description="What is wrong there.", examples=["is missing"])]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something was refused (RFC 9457)."""

    type: Annotated[
        str,
        Meta(
            description="Stable identifier of the kind of problem.",
            examples=["urn:gateway:problem:invalid"],
        ),
    ]
    title: Annotated[str, Meta(description="The kind in words.")]
    status: Annotated[int, Meta(description="HTTP status code.", examples=[422])]
    detail: Annotated[str, Meta(description="What happened this time.")] = ""
    errors: Annotated[tuple[FieldError, ...], Meta(description="One entry per bad field.")] = ()


class Refusal(Exception):
    """Ends a request with a problem, and headers beside it."""

    def __init__(self, problem: Problem, headers: Mapping[str, str]) -> None:
        super().__init__(problem.title)
        self.problem = problem
        self.headers = headers


def problem(kind: Kind, detail: str = "", *errors: FieldError) -> Problem:
    """One problem of a kind.

    Args:
        detail: Never a token, a key or a part of a payload.
    """
    return Problem(kind.type, kind.title, kind.status, detail, errors)


def refusal(kind: Kind, detail: str = "", *errors: FieldError) -> Refusal:
    """The exception that answers a request with a problem of a kind."""
    return Refusal(problem(kind, detail, *errors), kind.headers)


def problems(*, max_body_bytes: int) -> Middleware:
    """Answer every error below with a problem document.

    Args:
        max_body_bytes: The application's own bound, told to who passes it.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as error:
            return _response(error.problem, error.headers)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return _of_aiohttp(error, max_body_bytes)
        except Exception as error:  # noqa: BLE001 - the request's top frame: nobody else would answer
            log_failure(request, error)
            return _response(problem(INTERNAL), {})

    return answer


def unknown_encoding() -> Refusal:
    """The refusal of a body compressed in a way that is not known here."""
    return refusal(UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding may be {', '.join(ENCODINGS)}.")


def bad_request(_: web.BaseRequest, fault: BaseException | None) -> web.Response:
    """Answers what could not be read as HTTP, or had too long a header."""
    if isinstance(fault, ContentEncodingError):  # as of ``br``, for which aiohttp needs a library
        refused = unknown_encoding()
        return _response(refused.problem, refused.headers)
    return _of_aiohttp(web.HTTPBadRequest(), 0)


def as_expected(request: web.Request) -> bool:
    """Whether a request expects nothing but that it may go on with its body."""
    return request.headers.get("Expect", "").lower() in {"", "100-continue"}


async def expect(request: web.Request) -> web.StreamResponse | None:
    """Let the client go on with its body; other expectations are refused (RFC 9110, section 10.1.1).

    aiohttp asks before any middleware, and by itself would refuse in plain text.
    """
    if not as_expected(request):
        return _of_aiohttp(web.HTTPExpectationFailed(), 0)
    if request.version >= HttpVersion11:
        await request.writer.write(CONTINUE)
        request.writer.output_size = 0  # what it counts is the answer
    return None


def _of_aiohttp(error: web.HTTPException, max_body_bytes: int) -> web.Response:
    kind = _OF_AIOHTTP.get(error.status)
    if kind is None:
        # RFC 9457, 4.2.1: about:blank says no more than the status does
        title = HTTPStatus(error.status).phrase
        return _response(Problem("about:blank", title, error.status), {})
    detail, headers = "", {}
    if kind is TOO_LARGE:
        detail = f"A body may have {max_body_bytes} bytes."
    elif isinstance(error, web.HTTPMethodNotAllowed):
        headers["Allow"] = error.headers["Allow"]  # RFC 9110, 15.5.6: a 405 must name the others
        detail = f"Allowed: {headers['Allow']}."
    return _response(problem(kind, detail), headers)


def _response(problem: Problem, headers: Mapping[str, str]) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(problem),
        status=problem.status,
        headers=headers,
        content_type=MEDIA_TYPE,
    )


def log_failure(request: web.Request, error: Exception) -> None:
    """Log a bug without the exception's text, which may quote the request."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else ""
    kind = type(error).__name__
    _log.error("request failed", method=request.method, route=route, error=kind, throttle=kind)
    frames = traceback.format_tb(error.__traceback__)
    _log.debug("frames of a failed request", error=kind, frames=frames, throttle=kind)
