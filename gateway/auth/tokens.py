"""Verifies and mints tokens: JSON Web Tokens (RFC 7519) that say who a client is."""

import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import jwt
import msgspec
from jwt.warnings import InsecureKeyLengthWarning

from gateway.auth.claims import (
    Claims,
    device_of,
    id_of,
    max_sessions_of,
    presence_of,
    time_of,
    topics_of,
)
from gateway.auth.jwks import FetchedKeys
from gateway.auth.jws import UNREADABLE, Jws, parse
from gateway.auth.keys import HS256, PUBLIC_ALGORITHMS, KeySettings, configured_keys
from gateway.auth.refusal import TokenRefusal
from gateway.errors import TokenError

__all__ = ["Claims", "TokenSettings", "TokenVerifier", "mint"]

# A short secret is reported once, when the configuration is read, not with every token.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)

_payload: Final = msgspec.json.Decoder(dict[str, object])


class TokenSettings(KeySettings, Protocol):
    """The ``[auth]`` section, as far as tokens are concerned."""

    @property
    def audience(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def leeway_seconds(self) -> float: ...
    @property
    def max_token_seconds(self) -> int: ...


class TokenVerifier:
    """Checks tokens.

    Args:
        named: Claims to keep for the patterns of channel rules.
        max_user_bytes: Longest ``sub`` in UTF-8, so that all topics made of it are short enough.
        max_presence_bytes: Longest claim ``presence`` as JSON.
        fetched: The keys of an identity provider; None without one.
        revoked: Whether a token that is good otherwise has been called back.
        clock: Unix seconds.

    Raises:
        ConfigError: A configured key cannot be used.
    """

    def __init__(
        self,
        settings: TokenSettings,
        named: Iterable[str] = (),
        *,
        max_user_bytes: int,
        max_presence_bytes: int,
        fetched: FetchedKeys | None = None,
        revoked: Callable[[Claims], bool] = lambda _: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._keys = configured_keys(settings)
        self._fetched = fetched
        self._named = sorted({*named} - {"sub"})
        self._max_user_bytes = max_user_bytes
        self._max_presence_bytes = max_presence_bytes
        self._revoked = revoked
        self._clock = clock

    async def verify(self, token: str) -> Claims:
        """What a token says; waits only where its key has to be fetched first.

        Raises:
            TokenError: With the label of the first check that failed.
        """
        jws = parse(token)
        await self._check_signature(jws)
        claims = self._claims(jws.payload)
        return self.unrevoked(claims)

    def unrevoked(self, claims: Claims) -> Claims:
        """The same claims.

        Raises:
            TokenError: The token behind them has been called back.
        """
        if self._revoked(claims):
            raise TokenError(TokenRefusal.REVOKED)
        return claims

    def is_user(self, name: str) -> bool:
        """Whether a user can be called that: not empty, not too long, and text UTF-8 can carry."""
        try:
            return 0 < len(name.encode()) <= self._max_user_bytes
        except UnicodeEncodeError:  # half a surrogate pair, as of a name that was cut amid an emoji
            return False

    async def _check_signature(self, jws: Jws) -> None:
        """Whether one of the keys signed it; those at hand are tried before others are fetched."""
        keys = self._keys.find(jws)
        if any(key.verifies(jws) for key in keys):
            return
        if self._fetched is not None and jws.algorithm in PUBLIC_ALGORITHMS:
            keys += (fetched := await self._fetched.find(jws))
            if any(key.verifies(jws) for key in fetched):
                return
        elif not keys:
            keyless = self._fetched is None and not self._keys
            raise TokenError(TokenRefusal.NO_KEYS if keyless else TokenRefusal.ALGORITHM)
        raise TokenError(TokenRefusal.SIGNATURE if keys else TokenRefusal.KEY)

    def _claims(self, encoded: bytes) -> Claims:
        try:
            payload = _payload.decode(encoded)
        except UNREADABLE:
            raise TokenError(TokenRefusal.MALFORMED) from None
        user = payload.get("sub")
        if not isinstance(user, str) or not self.is_user(user):
            raise TokenError(TokenRefusal.CLAIMS)
        issued_at, expires_at = time_of(payload.get("iat")), time_of(payload.get("exp"))
        self._check_times(issued_at, expires_at, payload.get("nbf"))
        self._check_parties(payload.get("iss"), payload.get("aud"))
        named = {name: value for name in self._named if isinstance(value := payload.get(name), str)}
        return Claims(
            user,
            expires_at,
            named or None,
            device_of(payload.get("device")),
            max_sessions_of(payload.get("max_sessions")),
            presence_of(payload.get("presence"), self._max_presence_bytes),
            issued_at,
            id_of(payload.get("jti")),
            topics_of(payload.get("topics")),
        )

    def _check_times(self, issued_at: float, expires_at: float, not_before: object) -> None:
        leeway, now = self._settings.leeway_seconds, self._clock()
        begins_at = issued_at if not_before is None else max(issued_at, time_of(not_before))
        if begins_at > now + leeway:
            raise TokenError(TokenRefusal.NOT_YET_VALID)
        if expires_at <= now - leeway:
            raise TokenError(TokenRefusal.EXPIRED)
        if expires_at - issued_at > self._settings.max_token_seconds:
            raise TokenError(TokenRefusal.LIFETIME)

    def _check_parties(self, issuer: object, audience: object) -> None:
        """Who signed the token (RFC 7519, section 4.1.1) and for whom (4.1.3)."""
        wanted = self._settings.issuer
        if wanted and issuer != wanted:
            raise TokenError(TokenRefusal.CLAIMS if issuer is None else TokenRefusal.ISSUER)
        wanted = self._settings.audience
        audiences = audience if isinstance(audience, list) else [audience]
        if wanted and wanted not in audiences:
            raise TokenError(TokenRefusal.CLAIMS if audience is None else TokenRefusal.AUDIENCE)


def mint(
    secret: str,
    *,
    sub: str,
    ttl_seconds: int,
    now: float,
    device: dict[str, str] | None = None,
    topics: Sequence[str] | None = None,
    audience: str = "",
    issuer: str = "",
) -> str:
    """A token signed with ``secret``.

    Args:
        now: Unix seconds, its ``iat``.
        device: ``{"id", "name", "type"}`` of the device it is for.
        topics: Patterns of topics it may join.
    """
    payload: dict[str, object] = {"sub": sub, "iat": int(now), "exp": int(now) + ttl_seconds}
    optional = {"device": device, "topics": topics, "aud": audience, "iss": issuer}
    payload |= {name: value for name, value in optional.items() if value}
    return jwt.encode(payload, secret, algorithm=HS256)
