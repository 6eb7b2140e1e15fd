"""Reads what stands in the path and in the query of a request; what is wrong there is a 422 that names it."""

from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web

from gateway.api.body import invalid
from gateway.api.problem import FieldError
from gateway.protocol.reserved import MAX_NAME_BYTES, name_fits

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000

_DIGITS: Final = 10


def name_in(request: web.Request, field: str) -> str:
    """A topic or user: one percent-encoded segment of the path.

    Raises:
        Refusal: It is no UTF-8, or too long.
    """
    try:
        # yarl leaves bytes that are no UTF-8 as they are, percent signs and all
        unquote_to_bytes(request.rel_url.raw_path).decode()
    except UnicodeDecodeError:
        raise invalid(FieldError(field, "is no UTF-8")) from None
    return _fitting(field, request.match_info[field])


def page_in(request: web.Request, *others: str) -> tuple[str | None, int]:
    """The query's ``cursor``, None for the first page, and ``limit``, how much a page has.

    Args:
        others: What else may be in the query.

    Raises:
        Refusal: Something is not known here, or the limit is no number from 1 to :data:`MAX_LIMIT`.
    """
    unknown = [name for name in request.query if name not in ("cursor", "limit", *others)]
    if unknown:
        raise invalid(*(FieldError(name, "is not known here") for name in unknown))
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    # a number with more digits than Python reads is none either
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < _DIGITS else 0
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid(FieldError("limit", f"must be a number from 1 to {MAX_LIMIT}"))
    return request.query.get("cursor"), limit


def part_of_name(request: web.Request, field: str) -> str | None:
    """What the query says of a topic's or user's name, None where it says nothing.

    Raises:
        Refusal: It is too long.
    """
    text = request.query.get(field)
    return None if text is None else _fitting(field, text)


def _fitting(field: str, name: str) -> str:
    if not name_fits(name):
        raise invalid(FieldError(field, f"has more than {MAX_NAME_BYTES} bytes of UTF-8"))
    return name
