"""Tokens: JSON Web Tokens (RFC 7519) signed with HS256 that say who a client is."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import jwt
import msgspec
from jwt.exceptions import InvalidJTIError, InvalidSubjectError
from jwt.warnings import InsecureKeyLengthWarning

from gateway.device import Device, parse_device
from gateway.errors import TokenError

ALGORITHM: Final = "HS256"
"""
The one algorithm accepted, whatever the token's header asks for.

Choosing by the header would let anybody sign with ``none``, or with a public key taken for a secret.
"""

MAX_SESSIONS: Final = 10**6
"""Highest ``max_sessions`` of a token."""

# A short secret is reported once, when the configuration is read, not with every token.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)

_HOSTILE: Final = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
"""What PyJWT lets out for hostile tokens, ``exp`` of 1e400 or JSON nested a thousand deep among them."""

_REASONS: Final = (
    # the first that fits, so subclasses come before their bases
    (jwt.ExpiredSignatureError, "token_expired"),
    (jwt.ImmatureSignatureError, "token_not_yet_valid"),
    (jwt.InvalidIssuedAtError, "token_not_yet_valid"),
    (jwt.InvalidAudienceError, "token_audience"),
    (jwt.InvalidIssuerError, "token_issuer"),
    (jwt.MissingRequiredClaimError, "token_claims"),
    (InvalidSubjectError, "token_claims"),
    (InvalidJTIError, "token_claims"),
    (jwt.InvalidSignatureError, "token_signature"),
    (jwt.InvalidAlgorithmError, "token_algorithm"),
)


class TokenSettings(Protocol):
    """The ``[auth]`` section, as far as tokens are concerned."""

    @property
    def secrets(self) -> Sequence[str]: ...
    @property
    def audience(self) -> str: ...
    @property
    def issuer(self) -> str: ...
    @property
    def leeway_seconds(self) -> float: ...
    @property
    def max_token_seconds(self) -> int: ...


class Claims(msgspec.Struct, frozen=True):
    """What a valid token says.

    Attributes:
        user: ``sub``, the authenticated user.
        expires_at: ``exp``, unix seconds.
        others: The string claims beside ``sub`` that channel patterns ask for; None where there are none.
        device: ``device``, the device the token was made for; None where it names none.
        max_sessions: ``max_sessions``, how many sessions the user may have; None where it does not say.
        presence: ``presence``, a JSON object others see where the user is present.
        issued_at: ``iat``, unix seconds.
        jti: ``jti``, the token's own id; None where it has none.
    """

    user: str
    expires_at: float
    others: dict[str, str] | None = None
    device: Device | None = None
    max_sessions: int | None = None
    presence: bytes = b"{}"
    issued_at: float = 0.0
    jti: str | None = None

    def get(self, name: str) -> str | None:
        """A claim that channel patterns ask for."""
        if name == "sub":
            return self.user
        return None if self.others is None else self.others.get(name)


class TokenVerifier:
    """Checks tokens.

    Args:
        named: Claims to keep for the patterns of channel rules.
        max_user_bytes: Longest ``sub`` in UTF-8, so that all topics made of it are short enough.
        max_presence_bytes: Longest claim ``presence`` as JSON.
        revoked: Whether a token that is valid otherwise was revoked.
    """

    def __init__(
        self,
        settings: TokenSettings,
        named: Iterable[str] = (),
        *,
        max_user_bytes: int,
        max_presence_bytes: int,
        revoked: Callable[[Claims], bool] = lambda _: False,
    ) -> None:
        self._settings = settings
        self._named = sorted({*named} - {"sub"})
        self._max_user_bytes = max_user_bytes
        self._max_presence_bytes = max_presence_bytes
        self._revoked = revoked

    async def verify(self, token: str) -> Claims:
        """What a token says; waits only where its key has to be fetched first.

        Raises:
            TokenError: With the label of the first check that failed.
        """
        payload = self._decode(token)
        user, issued_at, expires_at = payload["sub"], payload["iat"], payload["exp"]
        if (
            not isinstance(user, str)
            or not self.is_user(user)
            or not isinstance(issued_at, int | float)
            or not isinstance(expires_at, int | float)
        ):
            raise TokenError("token_claims")
        if expires_at - issued_at > self._settings.max_token_seconds:
            raise TokenError("token_lifetime")
        named = {name: value for name in self._named if isinstance(value := payload.get(name), str)}
        jti = payload.get("jti")
        claims = Claims(
            user,
            float(expires_at),
            named or None,
            _device(payload.get("device")),
            _max_sessions(payload.get("max_sessions")),
            self._presence(payload.get("presence")),
            float(issued_at),
            jti if isinstance(jti, str) else None,
        )
        if self._revoked(claims):
            raise TokenError("token_revoked")
        return claims

    def is_user(self, name: str) -> bool:
        """Whether a user can be called that: not empty, not too long, and text UTF-8 can carry."""
        try:
            return 0 < len(name.encode()) <= self._max_user_bytes
        except UnicodeEncodeError:  # half a surrogate pair, as of a name that was cut amid an emoji
            return False

    def _presence(self, value: object) -> bytes:
        if value is None:
            return b"{}"
        try:
            encoded = msgspec.json.encode(value) if isinstance(value, dict) else b""
        except UnicodeEncodeError:
            encoded = b""
        if not encoded or len(encoded) > self._max_presence_bytes:
            raise TokenError("token_claims")
        return encoded

    def _decode(self, token: str) -> dict[str, object]:
        settings = self._settings
        error = TokenError("no_secret")
        for secret in settings.secrets:
            try:
                payload: dict[str, object] = jwt.decode(
                    token,
                    secret,
                    algorithms=[ALGORITHM],
                    audience=settings.audience or None,
                    issuer=settings.issuer or None,
                    leeway=settings.leeway_seconds,
                    options={
                        "require": ["sub", "iat", "exp"],
                        "verify_aud": bool(settings.audience),
                    },
                )
            except _HOSTILE as problem:
                error = TokenError(_reason(problem))
                if not isinstance(problem, jwt.InvalidSignatureError):
                    break  # the signature held, or the token cannot be read with any secret
            else:
                return payload
        raise error


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
    return jwt.encode(payload, secret, algorithm=ALGORITHM)


def _device(value: object) -> Device | None:
    if value is None:
        return None
    try:
        return parse_device(value)
    except ValueError:
        raise TokenError("token_claims") from None


def _max_sessions(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SESSIONS:
        raise TokenError("token_claims")
    return value


def _reason(problem: Exception) -> str:
    return next((label for kind, label in _REASONS if isinstance(problem, kind)), "token_malformed")
