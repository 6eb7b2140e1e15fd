"""Revokes tokens: ``POST /v1/tokens/revoke``."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Protocol

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from gateway.api import body
from gateway.api.problem import BUS_UNAVAILABLE, FieldError, refusal
from gateway.api.user_types import Disconnected
from gateway.auth.revocations import Revocation
from gateway.cluster import Cover
from gateway.errors import BusUnavailable
from gateway.protocol.reserved import MAX_NAME_BYTES, name_fits

_TARGETS: Final = ("user", "jti")


class RevokeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The tokens of a user, or one token, from a time on."""

    user: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_NAME_BYTES,
                description="All tokens of this user, `sub`.",
                examples=["42"],
            ),
        ]
        | UnsetType
    ) = UNSET
    jti: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=MAX_NAME_BYTES,
                description="The tokens with this id, whosever they are.",
            ),
        ]
        | UnsetType
    ) = UNSET
    issued_before: (
        Annotated[
            datetime,
            Meta(
                tz=True,
                description="Tokens with an `iat` before it are meant; now, when absent. At most "
                "`auth.leeway_seconds` in the future.",
                examples=["2026-01-02T03:04:05.678Z"],
            ),
        ]
        | UnsetType
    ) = UNSET

    def faults(self, latest: float) -> list[FieldError]:
        """What the types cannot say; empty when the request is valid.

        Args:
            latest: Unix seconds that ``issued_before`` may not pass.
        """
        given = [name for name in _TARGETS if getattr(self, name) is not UNSET]
        faults = [
            FieldError(name, f"must have at most {MAX_NAME_BYTES} bytes of UTF-8")
            for name in given
            if not name_fits(getattr(self, name))
        ]
        if not given:
            faults.append(FieldError("user", "one of user, jti is needed"))
        elif len(given) > 1:
            faults.append(FieldError("jti", "only one of user, jti can be given"))
        if self.issued_before is not UNSET and self.issued_before.timestamp() > latest:
            faults.append(FieldError("issued_before", "is in the future"))
        return faults


_decoder: Final = msgspec.json.Decoder(RevokeRequest)


class TokenRevoker(Protocol):
    """Revokes on all replicas."""

    async def revoke(self, revocation: Revocation, /) -> tuple[int, Cover]:
        """Refuse tokens everywhere and close their sockets; returns how many.

        Raises:
            BusUnavailable: It is in force on this replica alone.
        """


class TokenCalls:
    """The call.

    Args:
        leeway_seconds: How far clocks may differ.
        clock: Unix seconds.
    """

    def __init__(
        self, revoker: TokenRevoker, *, leeway_seconds: float, clock: Callable[[], float]
    ) -> None:
        self._revoker = revoker
        self._leeway_seconds = leeway_seconds
        self._clock = clock

    async def revoke(self, request: web.Request) -> web.Response:
        """``POST /v1/tokens/revoke``."""
        asked = body.decode(_decoder, await body.read(request))
        now = self._clock()
        faults = asked.faults(now + self._leeway_seconds)
        if faults:
            raise body.invalid(*faults)
        before = now if asked.issued_before is UNSET else asked.issued_before.timestamp()
        if asked.user is not UNSET:
            revocation = Revocation("sub", asked.user, before)
        else:
            assert asked.jti is not UNSET  # noqa: S101 -- as faults() found none
            revocation = Revocation("jti", asked.jti, before)
        try:
            closed, cover = await self._revoker.revoke(revocation)
        except BusUnavailable:
            text = (
                "This replica refuses the tokens already and has closed their sockets. The others "
                "learn of it when the bus is back, if this replica lives until then."
            )
            raise refusal(BUS_UNAVAILABLE, text) from None
        return body.answer(
            Disconnected(
                disconnected=closed, complete=cover.complete, missing_replicas=cover.missing
            )
        )
