"""Who is signed in: a cookie that is signed with the API key it stands for.

So it is good at every replica that has the key, survives restarts, and is worth nothing as soon as the key
is taken out of the configuration. No replica keeps anything of it but those that were signed out there.
"""

import base64
import hmac
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from gateway.api.keys import Keys
from gateway.config.sections import ApiKeySettings

COOKIE: Final = "gateway_console"

HOURS: Final = 8
"""How long one stays signed in."""

MAX_ENDED: Final = 1000
"""Signed-out cookies that are remembered; above that the oldest is forgotten."""

_MAX_COOKIE: Final = 1024
_MAC: Final = "sha256"


class SignIn(msgspec.Struct, frozen=True):
    """One browser that is signed in.

    Attributes:
        id: Unguessable, and no secret of any use.
        name: Of the API key.
        scopes: What it may do.
        expires_at: Unix seconds.
        form_token: Shows that a form was made here, for this browser.
    """

    id: str
    name: str
    scopes: frozenset[str]
    expires_at: float
    form_token: str


class SignIns:
    """Issues and reads cookies.

    Args:
        clock: Unix seconds.
    """

    def __init__(self, keys: Sequence[ApiKeySettings], clock: Callable[[], float]) -> None:
        self._keys = keys
        self._known = Keys(keys)
        self._clock = clock
        self._ended: dict[str, None] = {}

    def begin(self, presented: str) -> tuple[str, SignIn] | None:
        """A cookie for who presents an API key, and what it stands for; None for a wrong key."""
        known = self._known.find(presented)
        if known is None:
            return None
        expires = int(self._clock()) + HOURS * 3600
        name = base64.urlsafe_b64encode(known.name.encode()).decode()
        text = f"{secrets.token_urlsafe(18)}.{expires}.{name}"
        cookie = f"{text}.{_mac(presented, 'cookie', text)}"
        sign_in = self.read(cookie)
        assert sign_in is not None  # noqa: S101 -- it was made just now
        return cookie, sign_in

    def read(self, cookie: str) -> SignIn | None:
        """Who shows a cookie; None for one that is forged, expired, signed out, or of a key that is gone."""
        if len(cookie) > _MAX_COOKIE or not cookie.isascii():
            return None
        text, _, mac = cookie.rpartition(".")
        try:
            ident, expires, encoded = text.split(".")
            name = base64.urlsafe_b64decode(encoded).decode()
            expires_at = float(int(expires))
        except (ValueError, OverflowError):
            return None
        for key in self._keys:
            # two may have one name, while one replaces the other
            if key.name == name and hmac.compare_digest(_mac(key.key, "cookie", text), mac):
                known = self._known.find(key.key)
                assert known is not None  # noqa: S101 -- it is one of the keys
                form_token = _mac(key.key, "form", text)
                sign_in = SignIn(ident, name, known.scopes, expires_at, form_token)
                return sign_in if self.holds(sign_in) else None
        return None

    def holds(self, sign_in: SignIn) -> bool:
        """Whether one who was signed in still is."""
        return self._clock() < sign_in.expires_at and sign_in.id not in self._ended

    def end(self, sign_in: SignIn) -> None:
        """Sign out: this replica takes the cookie no more."""
        self._ended[sign_in.id] = None
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]


def _mac(key: str, purpose: str, text: str) -> str:
    message = f"gateway console {purpose}\n{text}".encode()
    digest = hmac.new(key.encode(errors="surrogateescape"), message, _MAC).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
