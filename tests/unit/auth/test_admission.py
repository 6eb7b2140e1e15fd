"""Admission: who may connect with which token, or without one."""

import time

import pytest

from gateway.auth.admission import Admission
from gateway.auth.revocations import Revocation, Revocations
from gateway.auth.rules import Rules
from gateway.auth.tokens import Claims, TokenVerifier
from gateway.errors import TokenError
from tests.unit.auth.test_tokens import NOW, Settings, signed


def admission(revocations: Revocations) -> Admission:
    """An admission as in dev mode."""

    def revoked(claims: Claims) -> bool:
        return revocations.revoked(claims.user, claims.jti, claims.issued_at)

    verifier = TokenVerifier(Settings(), max_user_bytes=250, max_presence_bytes=64, revoked=revoked)
    return Admission(verifier, Rules(()), anonymous=True, believed_user=True)


async def test_a_revoked_token_is_not_let_in_even_where_none_is_needed() -> None:
    revocations = Revocations(86_410, time.time)
    door = admission(revocations)
    assert await door.connect(signed(), None) is not None
    revocations.add(Revocation("sub", "42", NOW + 0.5))

    with pytest.raises(TokenError) as caught:
        await door.connect(signed(), None)
    assert caught.value.reason == "token_revoked"
    assert await door.connect(signed(iat=NOW + 1), None) is not None
    assert await door.connect(signed(sub="43"), None) is not None
    assert await door.connect(None, None) is None


async def test_a_believed_user_is_as_one_with_a_token_made_just_now() -> None:
    revocations = Revocations(86_410, time.time)
    door = admission(revocations)
    before = await door.connect(None, "42")
    revocations.add(Revocation("sub", "42", time.time()))
    after = await door.connect(None, "42")

    assert before is not None
    assert after is not None
    assert revocations.revoked("42", None, before.issued_at)
    assert not revocations.revoked("42", None, after.issued_at)
