"""Reads request bodies and writes JSON answers.

A body that cannot be read is a 400; one of the wrong shape is a 422 that names the field.
"""

import asyncio
import re
from typing import Final, TypeVar

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.problem import (
    BUSY,
    ENCODINGS,
    INVALID,
    TOO_SLOW,
    UNREADABLE,
    UNSUPPORTED_MEDIA_TYPE,
    FieldError,
    Refusal,
    refusal,
    unknown_encoding,
)
from gateway.inflight import InFlight

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""A batch of 1,000 messages of 16 KiB."""

MAX_TOTAL_BYTES: Final = 16 * MAX_BODY_BYTES
"""All bodies under way; one whose length is not known before it was read counts as the longest."""

BODY_SECONDS: Final = 30.0
"""How long a body may take to come."""

_JSON: Final = "application/json"
_NAMED: Final = {
    "Object missing required field": "is missing",
    "Object contains unknown field": "is not known here",
}
_BYTE: Final = re.compile(r"\(byte (\d+)\)")
_HALF: Final = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
"""The first half of a UTF-16 pair without the second."""
_PAIR_BYTES: Final = 12

T = TypeVar("T")

_encode: Final = msgspec.json.Encoder().encode


def bounded() -> Middleware:
    """Let no more bodies in at a time than :data:`MAX_TOTAL_BYTES`; who has no room is answered ``busy``."""
    in_flight = InFlight(longest=MAX_BODY_BYTES, each=MAX_TOTAL_BYTES, total=MAX_TOTAL_BYTES)

    @web.middleware
    async def hold(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.can_read_body:
            return await handler(request)
        encoded = hdrs.CONTENT_ENCODING in request.headers
        with in_flight.one_more("", None if encoded else request.content_length) as room:
            if not room:
                raise refusal(BUSY, "Bodies of others are under way. Nothing was done.")
            return await handler(request)

    return hold


async def read(request: web.Request) -> bytes:
    """The body of a request that says it is JSON, or says nothing.

    Raises:
        Refusal: Another media type or an unknown encoding (415), or the body did not arrive whole (400), or
            not in time (408).
        aiohttp.web.HTTPRequestEntityTooLarge: Above the application's bound.
    """
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() not in ENCODINGS:
        # aiohttp would hand over the body as it is, and it would be read as JSON
        raise unknown_encoding()
    stated = request.headers.get(hdrs.CONTENT_TYPE)
    if stated not in (None, _JSON) and request.content_type != _JSON:
        raise refusal(UNSUPPORTED_MEDIA_TYPE, f"Send it with Content-Type: {_JSON}.")
    try:
        if request.content.is_eof():  # it came with its head, as most do
            return await request.read()
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError as error:
        raise refusal(TOO_SLOW, f"It may take {BODY_SECONDS:g} seconds.") from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise refusal(UNREADABLE, "The body did not arrive whole.") from error


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The body as the decoder's type.

    Raises:
        Refusal: It is no UTF-8, no JSON, nested too deeply (400), or of another shape (422).
    """
    try:
        # msgspec passes over the inside of strings it does not decode. Bytes that are no UTF-8 would
        # reach browsers in a text frame, and those close the connection (RFC 6455, 8.1).
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except UnicodeDecodeError as error:
        raise refusal(UNREADABLE, f"No UTF-8 at byte {error.start}.") from error
    except msgspec.ValidationError as error:
        raise invalid(_fault(str(error))) from error
    except msgspec.DecodeError as error:
        raise refusal(UNREADABLE, _syntax(str(error), body)) from error
    except RecursionError as error:
        raise refusal(UNREADABLE, "Nested too deeply.") from error


def answer(report: msgspec.Struct, status: int = 200) -> web.Response:
    """The response whose body is a report."""
    return web.Response(body=_encode(report), status=status, content_type=_JSON)


def invalid(*faults: FieldError) -> Refusal:
    """The refusal of a request with these faults."""
    return refusal(INVALID, f"{faults[0].field}: {faults[0].message}.", *faults)


def _syntax(text: str, body: bytes) -> str:
    """What is wrong, in msgspec's words, which for half a UTF-16 pair may be that the body is truncated."""
    place = _BYTE.search(text)
    end = int(place[1]) if place else len(body)
    if "surrogate" in text or _HALF.search(body, max(end - _PAIR_BYTES, 0), end + _PAIR_BYTES):
        return f"Half of a surrogate pair before byte {end}: text cut within a character."
    return f"{text}."


def _fault(text: str) -> FieldError:
    """The field and the fault in msgspec's words, ``Expected `str`, got `int` - at `$.topic```."""
    sentence, _, place = text.partition(" - at `$")
    path = place.strip(".`")
    for opening, message in _NAMED.items():
        if sentence.startswith(opening):
            name = sentence.removeprefix(opening).strip(" `")
            return FieldError(f"{path}.{name}" if path else name, message)
    message = sentence.replace("`", "")
    return FieldError(path or "body", message[:1].lower() + message[1:])
