"""Tokens: a good one, and every way to be none."""

import base64
import json
import time
from typing import Any

import jwt
import msgspec
import pytest

from gateway.auth.tokens import TokenVerifier, mint
from gateway.errors import TokenError

SECRET = "a secret that is long enough for HS256!!"
OTHER = "another secret, also long enough for it!"
NOW = int(time.time())
HOUR = 3600  # parameters are made at collection, long before the last test runs


class Settings(msgspec.Struct):
    """The auth section."""

    secrets: tuple[str, ...] = (SECRET,)
    audience: str = ""
    issuer: str = ""
    leeway_seconds: float = 10
    max_token_seconds: int = 86_400


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token with good claims but for those given; None takes a claim away."""
    payload = {"sub": "42", "iat": NOW, "exp": NOW + HOUR} | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(payload, secret, algorithm=algorithm)


def raw(header: dict[str, Any], payload: str, signature: str = "") -> str:
    """A token put together by hand."""
    parts = [json.dumps(header).encode(), payload.encode()]
    return ".".join(
        [*(base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts), signature]
    )


def forged(payload: str) -> str:
    """A correctly signed token whose payload PyJWT would not write."""
    return jwt.PyJWS().encode(payload.encode(), SECRET, algorithm="HS256")


def test_a_good_token_says_who_it_is() -> None:
    claims = TokenVerifier(Settings()).verify(signed())

    assert (claims.user, claims.expires_at, claims.named) == ("42", NOW + HOUR, {"sub": "42"})


def test_claims_that_patterns_ask_for_are_kept_when_they_are_strings() -> None:
    claims = TokenVerifier(Settings(), ["org", "team"]).verify(signed(org="o", team=7, x="y"))

    assert claims.named == {"sub": "42", "org": "o"}


def test_all_secrets_verify_and_the_first_signs() -> None:
    verifier = TokenVerifier(Settings(secrets=(OTHER, SECRET)))

    assert verifier.verify(signed(SECRET)).user == "42"
    assert verifier.verify(mint(OTHER, sub="7", ttl_seconds=HOUR, now=NOW)).user == "7"


def test_a_minted_token_carries_what_it_was_given() -> None:
    token = mint(
        SECRET,
        sub="42",
        ttl_seconds=HOUR,
        now=NOW,
        device={"id": "phone"},
        topics=["room:*"],
        audience="a",
        issuer="i",
    )

    assert TokenVerifier(Settings(audience="a", issuer="i")).verify(token).user == "42"
    payload = jwt.decode(token, options={"verify_signature": False})
    assert payload["device"] == {"id": "phone"}
    assert payload["topics"] == ["room:*"]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (signed(exp=NOW - 60, iat=NOW - 120), "token_expired"),
        (signed(iat=NOW + 3600, exp=NOW + 7200), "token_not_yet_valid"),
        (signed(nbf=NOW + 3600), "token_not_yet_valid"),
        (signed(OTHER), "token_signature"),
        (signed(algorithm="HS384"), "token_algorithm"),
        (signed(algorithm="HS512"), "token_algorithm"),
        (jwt.encode({"sub": "42", "iat": NOW, "exp": NOW + HOUR}, "", "none"), "token_algorithm"),
        (raw({"alg": "none"}, json.dumps({"sub": "42"})), "token_algorithm"),
        (raw({"alg": "None"}, json.dumps({"sub": "42"})), "token_algorithm"),
        (raw({"alg": "RS256"}, json.dumps({"sub": "42"}), "c2ln"), "token_algorithm"),
        (raw({}, json.dumps({"sub": "42"}), "c2ln"), "token_algorithm"),
        (signed()[:-4] + "AAAA", "token_signature"),
        (signed(sub=None), "token_claims"),
        (signed(exp=None), "token_claims"),
        (signed(iat=None), "token_claims"),
        (signed(sub=""), "token_claims"),
        (signed(sub="x" * 256), "token_claims"),
        (forged('{"sub":42,"iat":1,"exp":9999999999}'), "token_claims"),
        (forged(f'{{"sub":"42","iat":{NOW},"exp":"{NOW + HOUR}"}}'), "token_claims"),
        (forged(f'{{"sub":"42","iat":{NOW},"exp":1e400}}'), "token_malformed"),
        (forged(f'{{"sub":"42","iat":true,"exp":{NOW + HOUR}}}'), "token_lifetime"),
        (forged("[]"), "token_malformed"),
        (forged("{"), "token_malformed"),
        (forged("[" * 5000), "token_malformed"),
        (signed(exp=NOW + 86_401), "token_lifetime"),
        ("", "token_malformed"),
        ("a", "token_malformed"),
        ("a.b.c", "token_malformed"),
        ("..", "token_malformed"),
        ("é.é.é", "token_malformed"),
        (signed() + ".x", "token_malformed"),
    ],
)
def test_a_bad_token_is_refused_with_its_reason(token: str, reason: str) -> None:
    with pytest.raises(TokenError) as caught:
        TokenVerifier(Settings()).verify(token)

    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("settings", "token", "reason"),
    [
        (Settings(audience="gw"), signed(aud="other"), "token_audience"),
        (Settings(audience="gw"), signed(), "token_claims"),
        (Settings(issuer="me"), signed(iss="you"), "token_issuer"),
        (Settings(issuer="me"), signed(), "token_claims"),
        (Settings(secrets=()), signed(), "no_secret"),
        (Settings(secrets=(OTHER, SECRET)), signed(exp=NOW - 60, iat=NOW - 90), "token_expired"),
    ],
)
def test_settings_decide_too(settings: Settings, token: str, reason: str) -> None:
    with pytest.raises(TokenError) as caught:
        TokenVerifier(settings).verify(token)

    assert caught.value.reason == reason


def test_clocks_may_differ_by_the_leeway() -> None:
    verifier = TokenVerifier(Settings(leeway_seconds=30))

    now = int(time.time())

    assert verifier.verify(signed(exp=now - 10, iat=now - 60)).user == "42"
