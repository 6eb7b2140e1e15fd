"""Bad tokens and bad keys, each refused with its reason."""

import contextlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.claims import Claims
from gateway.auth.jwk import MAX_KEYS, read_jwk, read_key_set
from gateway.auth.jwks import FetchedKeys
from gateway.auth.jws import MAX_TOKEN_BYTES, parse
from gateway.auth.keys import UnusableKey, configured_keys, read_pem
from gateway.auth.refusal import TokenRefusal
from gateway.auth.tokens import TokenVerifier
from gateway.errors import ConfigError, FetchError, TokenError
from tests.support.bad_tokens import (
    BAD_TOKENS,
    MAX_PRESENCE_BYTES,
    SECRET,
    Bad,
    auth,
    good_tokens,
    key_set,
    raw,
    signed,
)
from tests.support.keys import (
    SECP384R1,
    ec,
    ed,
    private_jwk,
    private_pem,
    public_jwk,
    public_pem,
    rsa,
)

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


class Settings(msgspec.Struct):
    """The auth section."""

    secrets: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    audience: str = ""
    issuer: str = ""
    leeway_seconds: float = 10
    max_token_seconds: int = 86_400


async def provider(_: str) -> bytes:
    """The identity provider."""
    return json.dumps(key_set()).encode()


async def nobody(_: str) -> bytes:
    """An identity provider that is away."""
    raise FetchError("away")


def gateway(**changes: Any) -> TokenVerifier:
    """A verifier with the keys the matrix is made for."""
    settings = msgspec.convert(auth() | changes.pop("auth", {}), Settings)
    options: dict[str, Any] = {"fetched": FetchedKeys("", provider, counted=lambda _: None)}
    return TokenVerifier(
        settings, max_user_bytes=250, max_presence_bytes=MAX_PRESENCE_BYTES, **(options | changes)
    )


async def refusal(token: str, verifier: TokenVerifier | None = None) -> str:
    """Why a token is refused."""
    with pytest.raises(TokenError) as caught:
        await (verifier or gateway()).verify(token)
    return caught.value.reason


@pytest.mark.parametrize("bad", BAD_TOKENS, ids=lambda bad: bad.name)
async def test_a_bad_token_is_refused(bad: Bad) -> None:
    assert await refusal(bad.make()) == bad.reason


@pytest.mark.parametrize("name", good_tokens())
async def test_a_good_token_beside_them_is_not(name: str) -> None:
    assert (await gateway().verify(good_tokens()[name])).user == "42"


async def test_a_token_is_refused_when_nobody_has_a_key() -> None:
    keyless = gateway(auth={"secrets": [], "public_keys": []}, fetched=None)

    assert await refusal(signed(), keyless) == "no_keys"
    assert await refusal(signed(rsa("login"), "RS256"), keyless) == "no_keys"


@pytest.mark.parametrize("algorithm", ["HS256", "ES256", "EdDSA"])
async def test_an_algorithm_without_a_key_is_refused(algorithm: str) -> None:
    only_rsa = gateway(
        auth={"secrets": [], "public_keys": [public_pem(rsa("login"))]}, fetched=None
    )

    assert await refusal(raw({"alg": algorithm}), only_rsa) == "token_algorithm"


async def test_a_secret_of_the_gateway_is_none_of_its_provider() -> None:
    only_provider = gateway(auth={"secrets": [], "public_keys": []})

    assert await refusal(signed(), only_provider) == "token_algorithm"


async def test_without_the_provider_only_its_tokens_are_refused() -> None:
    alone = gateway(fetched=FetchedKeys("", nobody, counted=lambda _: None))
    tokens = good_tokens()

    assert await refusal(tokens["the provider's EC key"], alone) == "keys_unavailable"
    assert (await alone.verify(tokens["the first secret"])).user == "42"
    assert (await alone.verify(tokens["a configured RSA key"])).user == "42"


async def test_a_revoked_token_is_refused() -> None:
    strict = gateway(revoked=lambda claims: claims.jti == "stolen")

    assert await refusal(signed(jti="stolen"), strict) == "token_revoked"
    assert (await strict.verify(signed(jti="mine"))).jti == "mine"


async def test_whether_it_is_revoked_is_asked_of_good_tokens_only() -> None:
    def revoked(_: Claims) -> bool:
        raise AssertionError("asked of a bad token")

    for bad in BAD_TOKENS:
        await refusal(bad.make(), gateway(revoked=revoked))


def test_the_matrix_has_every_label_that_a_token_alone_decides() -> None:
    reasons = Counter(bad.reason for bad in BAD_TOKENS)

    assert sum(reasons.values()) >= 40
    assert len({bad.name for bad in BAD_TOKENS}) == len(BAD_TOKENS)
    # the others are tested above, or at the socket: they are not about a token by itself
    elsewhere = {"no_token", "no_keys", "keys_unavailable", "token_revoked"}
    of_a_socket = {"token_subject", "upstream_user"}
    assert {*reasons} | elsewhere | of_a_socket == {*TokenRefusal}


def test_a_token_that_is_just_not_too_long_is_read() -> None:
    head, _, signature = signed().split(".")

    body = "A" * (MAX_TOKEN_BYTES - len(head) - len(signature) - 2)

    assert parse(f"{head}.{body}.{signature}").algorithm == "HS256"


@given(st.text() | st.from_regex(r"\A[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*\Z"))
async def test_whatever_is_no_token_is_refused(text: str) -> None:
    assert await refusal(text) in {"token_malformed", "token_algorithm", "token_signature"}


@given(st.binary(max_size=100))
async def test_whatever_is_signed_is_read_or_refused(payload: bytes) -> None:
    assert await refusal(raw({"alg": "HS256"}, payload)) in {"token_malformed", "token_claims"}


@given(
    st.dictionaries(
        st.sampled_from(
            ["sub", "iat", "exp", "nbf", "aud", "iss", "jti", "topics", "device", "presence"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=5,
        ),
        min_size=1,
    )
)
async def test_claims_of_any_shape_are_read_or_refused(claims: dict[str, Any]) -> None:
    payload = msgspec.json.encode({"sub": "42", "aud": "chat"} | claims)
    with contextlib.suppress(TokenError):  # and no other
        await gateway().verify(raw({"alg": "HS256"}, payload))


# Keys.

BAD_PUBLIC_KEYS = {
    "nothing in PEM": ("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n", "can be read"),
    "PEM that is cut": (public_pem(rsa("login"))[:200], "can be read"),
    "PEM in one line": (public_pem(rsa("login")).replace("\n", "\\n"), "can be read"),
    "another kind of PEM": (
        "-----BEGIN DH PARAMETERS-----\nMIIB\n-----END DH PARAMETERS-----",
        "can be read",
    ),
    "a private RSA key": (private_pem(rsa("login")), "private one"),
    "a private EC key": (private_pem(ec("login")), "private one"),
    "a private Ed25519 key": (private_pem(ed("login")), "private one"),
    "a certificate": (CERTIFICATE, "certificate"),
    "two keys": (public_pem(rsa("login")) + public_pem(ec("login")), "one PEM block"),
    "a short RSA key": (public_pem(rsa("weak", 1024)), "RSA key of 1024 bits"),
    "another curve": (public_pem(ec("other", SECP384R1)), "secp384r1"),
    "no file": ("/nowhere/key.pem", "path of a file"),
    "a directory": ("/", "path of a file"),
    "base64 alone": ("".join(public_pem(rsa("login")).splitlines()[1:-1]), "path of a file"),
    "an address": ("https://login.example/key.pem", "path of a file"),
    "a zero byte": ("key\x00.pem", "path of a file"),
}


@pytest.mark.parametrize("name", BAD_PUBLIC_KEYS)
def test_a_bad_public_key_is_named_and_not_shown(name: str) -> None:
    value, problem = BAD_PUBLIC_KEYS[name]
    settings = Settings(public_keys=(public_pem(ed("good")), value))

    with pytest.raises(ConfigError) as caught:
        configured_keys(settings)

    (line,) = caught.value.problems
    assert line.startswith("auth.public_keys[1]: ")
    assert problem in line
    assert not any(part in line for part in re.findall(r"[A-Za-z0-9+/]{12,}", value) if part)


@pytest.mark.parametrize(
    "secret",
    [
        public_pem(rsa("login")),
        public_pem(ec("login")).strip(),
        private_pem(ed("login")),
        CERTIFICATE,
        json.dumps(public_jwk(rsa("login"))),
        json.dumps(key_set()),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
    ],
)
def test_a_key_is_no_secret(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured_keys(Settings(secrets=(SECRET, secret)))

    (line,) = caught.value.problems
    assert line.startswith("auth.secrets[1]: is not allowed; it is no secret but a key")
    assert secret[:12] not in line


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        configured_keys(Settings(secrets=(CERTIFICATE,), public_keys=("/nowhere", CERTIFICATE)))

    assert [line.partition(":")[0] for line in caught.value.problems] == [
        "auth.secrets[0]",
        "auth.public_keys[0]",
        "auth.public_keys[1]",
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_file_holds_a_key_or_is_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "key.pem"
    path.write_text(public_pem(ed("login")), encoding=encoding)
    settings = Settings(public_keys=(str(path),))

    if encoding == "utf-8":
        assert [key.algorithm for key in configured_keys(settings).keys] == ["EdDSA"]
    else:
        with pytest.raises(ConfigError, match=r"auth\.public_keys\[0\]"):
            configured_keys(settings)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(rsa("login"), "RS256"), (ec("login"), "ES256"), (ed("login"), "EdDSA")],
)
def test_a_key_is_for_the_algorithm_of_its_type(key: Any, algorithm: str) -> None:
    assert read_pem(public_pem(key)).algorithm == algorithm
    assert read_jwk(public_jwk(key)).algorithm == algorithm
    assert read_jwk(public_jwk(key, "k", use="sig", alg=algorithm)).key_id == "k"


RSA_JWK, EC_JWK, ED_JWK = public_jwk(rsa("login")), public_jwk(ec("login")), public_jwk(ed("login"))

BAD_JWKS: dict[str, Any] = {
    "text": "key",
    "null": None,
    "an empty object": {},
    "a secret": {"kty": "oct", "k": "AAAA"},
    "another type": EC_JWK | {"kty": "XY"},
    "a type that is a list": EC_JWK | {"kty": ["EC"]},
    "a type in small letters": EC_JWK | {"kty": "ec"},
    "a kid that is a number": ED_JWK | {"kid": 1},
    "to encrypt": RSA_JWK | {"use": "enc"},
    "null for use": RSA_JWK | {"use": None},
    "operations that are others": RSA_JWK | {"key_ops": ["sign"]},
    "operations that are text": RSA_JWK | {"key_ops": "verify"},
    "a secret's alg": RSA_JWK | {"alg": "HS256"},
    "none": RSA_JWK | {"alg": "none"},
    "a bigger hash": RSA_JWK | {"alg": "RS512"},
    "another padding": RSA_JWK | {"alg": "PS256"},
    "another type's alg": ED_JWK | {"alg": "ES256"},
    "a private RSA key": private_jwk(rsa("login")),
    "a private EC key": private_jwk(ec("login")),
    "a private Ed25519 key": private_jwk(ed("login")),
    "a secret beside": RSA_JWK | {"k": "AAAA"},
    "a short RSA key": public_jwk(rsa("weak", 1024)),
    "another curve": public_jwk(ec("other", SECP384R1)),
    "the curve of another type": ED_JWK | {"crv": "P-256"},
    "a curve that nobody knows": EC_JWK | {"crv": "P-1"},
    "the curve of bitcoin": EC_JWK | {"crv": "secp256k1"},
    "a point beside the curve": EC_JWK | {"x": EC_JWK["y"], "y": EC_JWK["x"]},
    "a short coordinate": EC_JWK | {"x": "AAAA"},
    "no coordinate": {k: v for k, v in EC_JWK.items() if k != "y"},
    "no modulus": {k: v for k, v in RSA_JWK.items() if k != "n"},
    "a modulus that is a number": RSA_JWK | {"n": 7},
    "a modulus that is null": RSA_JWK | {"n": None},
    "an even exponent": RSA_JWK | {"e": "Ag"},
    "an exponent of one": RSA_JWK | {"e": "AQ"},
    "an empty exponent": RSA_JWK | {"e": ""},
    "a cut Ed25519 key": ED_JWK | {"x": "AAAA"},
    "no base64": ED_JWK | {"x": "é"},
}


@pytest.mark.parametrize("name", BAD_JWKS)
def test_a_bad_entry_of_a_key_set_is_passed_over(name: str) -> None:
    bad = BAD_JWKS[name]

    with pytest.raises(UnusableKey):
        read_jwk(bad)
    keys, ignored = read_key_set(json.dumps({"keys": [bad, ED_JWK, bad]}).encode())

    assert ([key.algorithm for key in keys.keys], ignored) == (["EdDSA"], 2)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": null}',
        b"<html>",
        b"[" * 100_000,
        b'{"keys": ["\xff"]}',
        json.dumps(RSA_JWK).encode(),
    ],
)
def test_what_is_no_key_set_is_told_from_an_empty_one(document: bytes) -> None:
    with pytest.raises(FetchError):
        read_key_set(document)

    assert read_key_set(b'{"keys": []}')[1] == 0


def test_of_a_giant_key_set_the_first_keys_are_taken() -> None:
    keys, ignored = read_key_set(json.dumps({"keys": [ED_JWK] * (MAX_KEYS + 9)}).encode())

    assert (len(keys), ignored) == (MAX_KEYS, 9)
