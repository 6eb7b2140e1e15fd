"""Tokens as a login would sign them."""

import time
from typing import Any

import jwt

SECRET = "a test secret, long enough for HS256 to be fine"

BRIEF = 4
"""Seconds a token is good for that has to expire: time to connect and join, on a busy machine too."""


def token(sub: str = "42", *, ttl: int = 3600, secret: str = SECRET, **claims: Any) -> str:
    """A token of user ``sub``; further claims replace or extend the usual ones."""
    now = int(time.time())
    return jwt.encode({"sub": sub, "iat": now, "exp": now + ttl} | claims, secret, "HS256")
