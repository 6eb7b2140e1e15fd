"""Parses a token's signed form, the compact JSON Web Signature (RFC 7515, section 7.1).

A token is read once and then tried with as many keys as may have signed it. Nothing in it is believed here.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec

from gateway.auth.refusal import TokenRefusal
from gateway.errors import TokenError

MAX_TOKEN_BYTES: Final = 7168
"""
Longest token.

Request lines and headers end at 8 KiB here, as with most proxies. A token that is too long should find
this limit before that one, since it says why.
"""

UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding hostile JSON raises: invalid UTF-8 and JSON nested a thousand deep among it."""


class Jws(msgspec.Struct, frozen=True, gc=False):
    """A token in parts.

    Attributes:
        algorithm: What the header says of it: to find keys by, never to verify with.
        key_id: ``kid``, which of the signer's keys it is; None where the header does not say.
        signed: What the signature is of.
    """

    algorithm: str
    key_id: str | None
    payload: bytes
    signed: bytes
    signature: bytes


class _Header(msgspec.Struct, gc=False):
    """The members that matter. A missing ``alg`` is one that nobody has."""

    alg: str = ""
    kid: str | None = None
    crit: object = msgspec.UNSET
    b64: bool = True


_header: Final = msgspec.json.Decoder(_Header)


def parse(token: str) -> Jws:
    """Take a token apart.

    Raises:
        TokenError: It is too long or malformed.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenError(TokenRefusal.TOO_LONG)
    try:
        encoded = token.encode("ascii")
        head, payload, signature = encoded.split(b".")
        header = _header.decode(_decode(head))
        # Section 4.1.11: extensions that a reader must understand; this one understands none. An unencoded
        # payload (RFC 7797) is one of them, and has to be refused where the signer forgot to say so.
        if header.crit is not msgspec.UNSET or not header.b64:
            raise TokenError(TokenRefusal.MALFORMED)
        return Jws(
            header.alg,
            header.kid,
            _decode(payload),
            encoded[: len(head) + 1 + len(payload)],
            _decode(signature),
        )
    except UNREADABLE:
        raise TokenError(TokenRefusal.MALFORMED) from None


def _decode(segment: bytes) -> bytes:
    """Base64url without padding (section 2), in its one canonical form.

    Raises:
        ValueError: It is something else. Python passes over foreign characters, so one token could be
            written in many ways.
    """
    decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    if urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise ValueError("no canonical base64url")
    return decoded
