"""Keeps the revoked tokens: those refused although their signature and times are good.

Pure: the clock is injected. How replicas tell each other is not known here.
"""

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Final, Literal, TypeAlias

import msgspec

from gateway.auth.claims import Claims

MOST_REVOCATIONS: Final = 100_000
"""Kept at most, some 20 MiB; the oldest are dropped."""

Claim: TypeAlias = Literal["sub", "jti"]


class Revocation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tokens that are refused from now on.

    Attributes:
        claim: Which claim of a token is looked at.
        value: What it says in the tokens meant.
        issued_before: Unix seconds, compared with their ``iat`` (RFC 7519, 4.1.6). That is in whole
            seconds in most tokens, rounded down, so a token of the very second in which it was revoked
            is refused too, even if it was issued a moment later.
    """

    claim: Claim
    value: str
    issued_before: float

    def __post_init__(self) -> None:
        if not isfinite(self.issued_before):  # it would be compared in vain, or kept for ever
            raise ValueError("issued_before is no time")


class Revocations:
    """All that is revoked, as far as this replica knows.

    Args:
        keep_seconds: For how long after ``issued_before`` a token can be valid. A revocation is
            forgotten afterwards: all that it refuses have expired.
        clock: Unix seconds.
        dropped: Called for each that is forgotten before its time.
    """

    def __init__(
        self,
        keep_seconds: float,
        clock: Callable[[], float],
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._dropped = dropped
        # In the order in which they came, so about in that in which they end.
        self._issued_before: dict[tuple[Claim, str], float] = {}

    def __len__(self) -> int:
        return len(self._issued_before)

    def add(self, revocation: Revocation) -> bool:
        """Refuse tokens from now on; False if all of them are refused already, or have expired."""
        expired = self._clock() - self._keep_seconds
        self._forget(expired)
        kept = self._issued_before
        key = (revocation.claim, revocation.value)
        if revocation.issued_before <= max(expired, kept.get(key, expired)):
            return False
        kept.pop(key, None)  # so that it comes last
        kept[key] = revocation.issued_before
        if len(kept) > MOST_REVOCATIONS:
            del kept[next(iter(kept))]
            self._dropped()
        return True

    def revoked(self, user: str, jti: str | None, issued_at: float) -> bool:
        """Whether a token is refused.

        Args:
            issued_at: Its ``iat``, unix seconds.
        """
        kept = self._issued_before
        if not kept:
            return False
        never = float("-inf")
        return issued_at < kept.get(("sub", user), never) or (
            jti is not None and issued_at < kept.get(("jti", jti), never)
        )

    def refuses(self, claims: Claims) -> bool:
        """Whether the token that says this was revoked, by its ``sub`` or by whom the backend named."""
        names = (claims.user, claims.subject) if claims.subject else (claims.user,)
        return any(self.revoked(name, claims.jti, claims.issued_at) for name in names)

    def all(self) -> list[Revocation]:
        """Those that still refuse anything."""
        expired = self._clock() - self._keep_seconds
        return [
            Revocation(claim, value, issued_before)
            for (claim, value), issued_before in self._issued_before.items()
            if issued_before > expired
        ]

    def _forget(self, expired: float) -> None:
        """Forget the first ones if they ended; one behind a longer-lived one waits for that."""
        kept = self._issued_before
        while kept:
            first = next(iter(kept))
            if kept[first] > expired:
                return
            del kept[first]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[Revocation, ...]).decode


def encode(revocations: Iterable[Revocation]) -> bytes:
    """Some revocations as bytes, MessagePack."""
    return _encode(tuple(revocations))


def decode(data: bytes) -> tuple[Revocation, ...]:
    """The revocations in some bytes.

    Raises:
        ValueError: They are none this release knows.
    """
    return _decode(data)
