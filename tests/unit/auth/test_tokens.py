"""Tokens: a good one, and every way to be none."""

import base64
import json
import time
from typing import Any

import jwt
import msgspec
import pytest

from gateway.auth.tokens import MAX_SESSIONS, Claims, TokenVerifier, mint
from gateway.device import Device
from gateway.errors import TokenError

SECRET = "a secret that is long enough for HS512, so that PyJWT has no word of warning"
OTHER = "another secret that is long enough for HS512, so that PyJWT is silent, too"
NOW = int(time.time())
PRESENCE_BYTES = 64
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


def verifier(settings: Settings | None = None, named: tuple[str, ...] = ()) -> TokenVerifier:
    """A verifier with bounds that are easy to reach."""
    return TokenVerifier(
        settings or Settings(), named, max_user_bytes=250, max_presence_bytes=PRESENCE_BYTES
    )


async def test_a_good_token_says_who_it_is() -> None:
    claims = await verifier().verify(signed())

    assert (claims.user, claims.expires_at, claims.get("sub")) == ("42", NOW + HOUR, "42")
    assert claims.get("org") is None


@pytest.mark.parametrize(
    ("extra", "device", "max_sessions", "presence"),
    [
        ({}, None, None, b"{}"),
        ({"device": {}}, Device(), None, b"{}"),
        ({"device": {"id": "d", "type": "tv", "os": 1}}, Device("d", type="tv"), None, b"{}"),
        ({"device": {"name": "x" * 128}}, Device(name="x" * 128), None, b"{}"),
        ({"max_sessions": 1}, None, 1, b"{}"),
        ({"max_sessions": MAX_SESSIONS}, None, MAX_SESSIONS, b"{}"),
        ({"presence": {}}, None, None, b"{}"),
        ({"presence": {"name": "Ann", "n": [1]}}, None, None, b'{"name":"Ann","n":[1]}'),
        ({"presence": {"a": "x" * 56}}, None, None, b'{"a":"%b"}' % (b"x" * 56)),
    ],
)
async def test_a_token_may_say_more(
    extra: dict[str, Any], device: Device | None, max_sessions: int | None, presence: bytes
) -> None:
    claims = await verifier().verify(signed(**extra))

    assert (claims.device, claims.max_sessions, claims.presence) == (device, max_sessions, presence)


@pytest.mark.parametrize(
    "claim",
    [
        '"device":"phone"',
        '"device":[]',
        '"device":7',
        '"device":{"id":7}',
        '"device":{"id":null}',
        '"device":{"name":"%s"}' % ("x" * 129),
        '"device":{"type":["tv"]}',
        '"max_sessions":0',
        '"max_sessions":-1',
        '"max_sessions":1.0',
        '"max_sessions":true',
        '"max_sessions":"1"',
        '"max_sessions":[]',
        '"max_sessions":1000001',
        '"max_sessions":1e400',
        '"presence":[]',
        '"presence":"x"',
        '"presence":true',
        '"presence":{"a":"%s"}' % ("x" * 57),
        '"presence":{"a":"%s"}' % ("ü" * 29),
        '"presence":{"a":"\\ud800"}',
        '"device":{"name":"\\ud800"}',
        '"sub":"\\ud800"',
    ],
)
async def test_a_claim_of_another_shape_is_refused(claim: str) -> None:
    token = forged(f'{{"sub":"42","iat":{NOW},"exp":{NOW + HOUR},{claim}}}')

    with pytest.raises(TokenError) as caught:
        await verifier().verify(token)

    assert caught.value.reason == "token_claims"


@pytest.mark.parametrize("claim", ["device", "max_sessions", "presence"])
async def test_a_claim_that_is_null_is_none(claim: str) -> None:
    claims = await verifier().verify(
        forged(f'{{"sub":"42","iat":{NOW},"exp":{NOW + HOUR},"{claim}":null}}')
    )

    assert claims == await verifier().verify(signed())


async def test_claims_that_patterns_ask_for_are_kept_when_they_are_strings() -> None:
    claims = await verifier(named=("org", "team")).verify(signed(org="o", team=7, x="y"))

    assert [claims.get(name) for name in ("sub", "org", "team", "x")] == ["42", "o", None, None]


async def test_all_secrets_verify_and_the_first_signs() -> None:
    both = verifier(Settings(secrets=(OTHER, SECRET)))

    assert (await both.verify(signed(SECRET))).user == "42"
    assert (await both.verify(mint(OTHER, sub="7", ttl_seconds=HOUR, now=NOW))).user == "7"


async def test_a_minted_token_carries_what_it_was_given() -> None:
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

    assert (await verifier(Settings(audience="a", issuer="i")).verify(token)).user == "42"
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
        (signed(sub="x" * 251), "token_claims"),
        (signed(sub="ü" * 126), "token_claims"),
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
async def test_a_bad_token_is_refused_with_its_reason(token: str, reason: str) -> None:
    with pytest.raises(TokenError) as caught:
        await verifier().verify(token)

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
async def test_settings_decide_too(settings: Settings, token: str, reason: str) -> None:
    with pytest.raises(TokenError) as caught:
        await verifier(settings).verify(token)

    assert caught.value.reason == reason


async def test_clocks_may_differ_by_the_leeway() -> None:
    lenient = verifier(Settings(leeway_seconds=30))

    now = int(time.time())

    assert (await lenient.verify(signed(exp=now - 10, iat=now - 60))).user == "42"


async def test_a_token_says_when_it_was_issued_and_which_it_is() -> None:
    claims = await verifier().verify(signed(iat=NOW - 5, jti="j"))
    assert (claims.issued_at, claims.jti) == (NOW - 5, "j")
    claims = await verifier().verify(signed())
    assert (claims.issued_at, claims.jti) == (NOW, None)


async def test_a_revoked_token_is_refused_whatever_else_it_says() -> None:
    asked: list[Claims] = []

    def revoked(claims: Claims) -> bool:
        asked.append(claims)
        return claims.jti == "revoked"

    checks = TokenVerifier(
        Settings(), max_user_bytes=250, max_presence_bytes=PRESENCE_BYTES, revoked=revoked
    )
    assert (await checks.verify(signed(jti="other"))).jti == "other"
    with pytest.raises(TokenError) as caught:
        await checks.verify(signed(jti="revoked"))
    assert caught.value.reason == "token_revoked"
    with pytest.raises(TokenError) as caught:
        await checks.verify(signed(OTHER, jti="revoked"))
    assert caught.value.reason == "token_signature", "only who has a valid token learns of it"
    assert [each.jti for each in asked] == ["other", "revoked"]
