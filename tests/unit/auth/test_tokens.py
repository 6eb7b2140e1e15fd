"""Tokens: what a good one says. How to be none is in test_token_matrix."""

import sys
import time
from typing import Any

import jwt
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.claims import MAX_ID_CHARACTERS, MAX_SESSIONS, MAX_TOPICS, NO_PRESENCE, Claims
from gateway.auth.tokens import TokenVerifier, mint
from gateway.device import Device
from gateway.errors import TokenError
from tests.support.keys import ALGORITHMS, private_key, public_pem

SECRET = "a secret that is long enough for HS512, so that PyJWT has no word of warning"
OTHER = "another secret that is long enough for HS512, so that PyJWT is silent, too"
NOW = int(time.time())
PRESENCE_BYTES = 64
HOUR = 3600


class Settings(msgspec.Struct):
    """The auth section."""

    secrets: tuple[str, ...] = (SECRET,)
    public_keys: tuple[str, ...] = ()
    audience: str = ""
    issuer: str = ""
    leeway_seconds: float = 10
    max_token_seconds: int = 86_400


def signed(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token with good claims but for those given; None takes a claim away."""
    payload = {"sub": "42", "iat": NOW, "exp": NOW + HOUR} | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(payload, key, algorithm=algorithm)


def forged(payload: str) -> str:
    """A correctly signed token whose payload PyJWT would not write."""
    return jwt.PyJWS().encode(payload.encode(), SECRET, algorithm="HS256")


def verifier(
    settings: Settings | None = None, named: tuple[str, ...] = (), now: float = NOW
) -> TokenVerifier:
    """A verifier with bounds that are easy to reach, at a time that stands still."""
    return TokenVerifier(
        settings or Settings(),
        named,
        max_user_bytes=250,
        max_presence_bytes=PRESENCE_BYTES,
        clock=lambda: now,
    )


async def test_a_good_token_says_who_it_is() -> None:
    claims = await verifier().verify(signed(iat=NOW - 1))

    assert (claims.user, claims.issued_at, claims.expires_at) == ("42", NOW - 1, NOW + HOUR)
    assert claims.get("sub") == "42"
    assert claims.get("org") is None
    assert (claims.jti, claims.topics, claims.device) == (None, (), None)
    assert (claims.max_sessions, claims.presence) == (None, b"{}")


@pytest.mark.parametrize(
    ("extra", "device", "max_sessions", "presence"),
    [
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


async def test_presence_is_measured_in_bytes() -> None:
    assert (await verifier().verify(signed(presence={"a": "ü" * 28}))).presence
    with pytest.raises(TokenError, match="token_claims"):
        await verifier().verify(signed(presence={"a": "ü" * 29}))


@pytest.mark.parametrize(
    "claim", ["device", "max_sessions", "presence", "jti", "topics", "nbf", "aud", "iss"]
)
async def test_a_claim_that_is_null_is_none(claim: str) -> None:
    claims = await verifier().verify(
        forged(f'{{"sub":"42","iat":{NOW},"exp":{NOW + HOUR},"{claim}":null}}')
    )

    assert claims == await verifier().verify(signed())


async def test_claims_that_patterns_ask_for_are_kept_when_they_are_strings() -> None:
    claims = await verifier(named=("org", "team")).verify(signed(org="o", team=7, x="y"))

    assert [claims.get(name) for name in ("sub", "org", "team", "x")] == ["42", "o", None, None]


async def test_the_longest_ids_and_the_most_topics_are_taken() -> None:
    topics = ["x" * 255, "y" * 255 + "*", "*", *(f"room:{n}" for n in range(MAX_TOPICS - 3))]
    token = signed(sub="ü" * 125, jti="j" * MAX_ID_CHARACTERS, topics=topics)

    claims = await verifier().verify(token)

    assert (claims.user, claims.jti) == ("ü" * 125, "j" * MAX_ID_CHARACTERS)
    assert claims.topics == tuple(topics)


@pytest.mark.parametrize(
    ("topics", "topic", "admitted"),
    [
        ((), "room:1", False),
        (("room:1",), "room:1", True),
        (("room:1",), "room:12", False),
        (("room:1",), "room:", False),
        (("room:*",), "room:1", True),
        (("room:*",), "room:", True),
        (("room:*",), "rooms:1", False),
        (("room:*",), "lobby:room:1", False),
        (("lobby", "room:*"), "room:1:2", True),
        (("*",), "anything", True),
        (("Room:1",), "room:1", False),
        (("room:?",), "room:1", False),
        (("room:.",), "room:1", False),
    ],
)
def test_a_token_admits_the_topics_it_names(
    topics: tuple[str, ...], topic: str, admitted: bool
) -> None:
    assert Claims("42", 0.0, topics=topics).admits_topic(topic) is admitted


@given(st.text(), st.text())
def test_a_prefix_admits_what_begins_with_it(prefix: str, rest: str) -> None:
    claims = Claims("42", 0.0, topics=(prefix + "*",))

    assert claims.admits_topic(prefix + rest)
    assert claims.admits_topic(rest) is rest.startswith(prefix)


@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        ({"exp": NOW - 9, "iat": NOW - 60}, None),
        ({"exp": NOW - 10, "iat": NOW - 60}, "token_expired"),
        ({"iat": NOW + 10}, None),
        ({"iat": NOW + 11}, "token_not_yet_valid"),
        ({"nbf": NOW + 10}, None),
        ({"nbf": NOW + 11}, "token_not_yet_valid"),
        ({"nbf": 0}, None),
        ({"exp": NOW + 86_400}, None),
        ({"exp": NOW + 86_401}, "token_lifetime"),
        ({"iat": NOW + 0.5, "exp": NOW + 0.75}, None),
    ],
)
async def test_clocks_may_differ_by_the_leeway_and_no_more(
    claims: dict[str, Any], refused: str | None
) -> None:
    token = signed(**claims)
    if refused is None:
        assert (await verifier().verify(token)).user == "42"
    else:
        with pytest.raises(TokenError, match=refused):
            await verifier().verify(token)


async def test_a_good_token_is_no_longer_good_when_time_has_passed() -> None:
    token = signed()

    assert (await verifier(now=NOW + HOUR).verify(token)).user == "42"
    with pytest.raises(TokenError, match="token_expired"):
        await verifier(now=NOW + HOUR + 10).verify(token)


@pytest.mark.parametrize(
    ("settings", "claims"),
    [
        (Settings(), {"aud": "anybody", "iss": "somebody"}),
        (Settings(audience="gw"), {"aud": "gw"}),
        (Settings(audience="gw"), {"aud": ["other", "gw"]}),
        (Settings(issuer="me"), {"iss": "me"}),
    ],
)
async def test_issuer_and_audience_are_compared_where_they_are_configured(
    settings: Settings, claims: dict[str, Any]
) -> None:
    assert (await verifier(settings).verify(signed(**claims))).user == "42"


async def test_all_secrets_verify_and_the_first_signs() -> None:
    both = verifier(Settings(secrets=(OTHER, SECRET)))

    assert (await both.verify(signed(SECRET))).user == "42"
    assert (await both.verify(mint(OTHER, sub="7", ttl_seconds=HOUR, now=NOW))).user == "7"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_all_public_keys_verify_so_that_they_can_be_rotated(algorithm: str) -> None:
    old, new = private_key(algorithm, "old"), private_key(algorithm, "new")
    both = verifier(Settings(secrets=(), public_keys=(public_pem(new), public_pem(old))))
    only_new = verifier(Settings(secrets=(), public_keys=(public_pem(new),)))

    assert (await both.verify(signed(old, algorithm))).user == "42"
    assert (await both.verify(signed(new, algorithm))).user == "42"
    with pytest.raises(TokenError, match="token_signature"):
        await only_new.verify(signed(old, algorithm))


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

    claims = await verifier(Settings(audience="a", issuer="i")).verify(token)

    assert (claims.user, claims.device, claims.topics) == ("42", Device("phone"), ("room:*",))


async def test_what_a_token_does_not_say_costs_its_socket_nothing() -> None:
    claims = await verifier(named=("org",)).verify(signed())

    assert claims.others is None
    assert claims.presence is NO_PRESENCE
    assert claims.topics == ()
    assert sys.getsizeof(claims) < 128
