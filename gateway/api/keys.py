"""Checks the API key of a request, and whether it has the scope of the operation."""

import hmac
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway.api.problem import FORBIDDEN, UNAUTHORIZED, refusal
from gateway.config.fields import Scope
from gateway.config.sections import ApiKeySettings

PREFIX: Final = "/v1/"
"""Every path below needs a key, also one where nothing is."""

_BEARER: Final = "bearer "


class KnownKey(NamedTuple):
    """What is configured of an API key.

    Attributes:
        name: Of several with the same key, the first.
        scopes: What any of them may do.
    """

    name: str
    scopes: frozenset[str]


class Keys:
    """The configured keys; with none of them nobody is let in."""

    def __init__(self, keys: Iterable[ApiKeySettings]) -> None:
        self._keys = [(_octets(key.key), key.name, frozenset(key.scopes)) for key in keys]

    def find(self, presented: str) -> KnownKey | None:
        """The key that is presented; None for a wrong one."""
        octets = _octets(presented)
        found: KnownKey | None = None
        for key, name, scopes in self._keys:
            # All keys are looked at, each in constant time: how long it takes tells nothing about them.
            if hmac.compare_digest(key, octets):
                found = (
                    KnownKey(name, scopes)
                    if found is None
                    else KnownKey(found.name, found.scopes | scopes)
                )
        return found

    def scopes(self, headers: Mapping[str, str]) -> frozenset[str]:
        """What the key in the headers allows.

        Raises:
            Refusal: No key, or a wrong one (401).
        """
        presented = _presented(headers)
        if presented is None:
            raise refusal(UNAUTHORIZED, "Send Authorization: Bearer KEY, or X-API-Key: KEY.")
        found = self.find(presented)
        if found is None:
            raise refusal(UNAUTHORIZED, "The API key is not known.")
        return found.scopes


def authentication(keys: Keys, needed: Mapping[Handler, Scope]) -> Middleware:
    """Let a request below :data:`PREFIX` pass only with a key that has its handler's scope.

    Args:
        needed: Scopes by handler. A path without a handler needs a key all the same, so that nobody
            without one learns what there is.
    """

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(PREFIX):
            allowed = keys.scopes(request.headers)
            scope = needed.get(request.match_info.handler)
            if scope is not None and scope not in allowed:
                raise refusal(FORBIDDEN, f"The API key lacks the scope {scope}.")
        return await handler(request)

    return authenticate


def _presented(headers: Mapping[str, str]) -> str | None:
    authorization = headers.get(hdrs.AUTHORIZATION, "")
    if authorization[: len(_BEARER)].lower() == _BEARER:  # RFC 9110, 11.1: in any case
        return authorization[len(_BEARER) :].strip()
    # A proxy's own Basic credentials may stand in Authorization.
    return headers.get("X-API-Key")


def _octets(key: str) -> bytes:
    """A key as bytes; aiohttp keeps bytes of a header that are no UTF-8 as surrogates."""
    return key.encode(errors="surrogateescape")
