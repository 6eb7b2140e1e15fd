"""Mints the tokens that clients connect with: JSON Web Tokens (RFC 7519), signed with HS256."""

import base64
import hmac
import json
import time
from typing import Any, TypedDict, Unpack

from .webhook import Device


class Claims(TypedDict, total=False):
    """What a token may say beside the user and its times; see docs/authentication.md."""

    device: Device
    topics: list[str]
    max_sessions: int
    presence: dict[str, Any]
    jti: str
    aud: str
    iss: str


def mint_token(secret: str, user: str, ttl_seconds: int = 3600, **claims: Unpack[Claims]) -> str:
    """A token for a user.

    Args:
        secret: The first of ``auth.secrets``.
    """
    now = int(time.time())
    payload = {"sub": user, "iat": now, "exp": now + ttl_seconds} | claims
    signed = b".".join(_part(json.dumps(part).encode()) for part in (_HEADER, payload))
    return b".".join((signed, _part(hmac.digest(secret.encode(), signed, "sha256")))).decode()


_HEADER = {"alg": "HS256", "typ": "JWT"}


def _part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
