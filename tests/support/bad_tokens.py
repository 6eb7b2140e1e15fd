"""Tokens that must be refused, each with its reason, and the gateway they are presented to.

That gateway trusts two secrets, a public key for RS256 and one for ES256, and an identity provider.
"""

import base64
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.auth.claims import MAX_ID_CHARACTERS, MAX_SESSIONS, MAX_TOPICS
from gateway.auth.jws import MAX_TOKEN_BYTES
from tests.support.keys import ec, ed, private_jwk, public_jwk, public_pem, rsa

SECRET = "the first secret, which signs, and is long enough for HS512: 0123456789 0123456789"
OLDER_SECRET = "the second secret, which only verifies, and is as long: 0123456789 0123456789"
FOREIGN_SECRET = "a secret that the gateway does not know, and as long: 0123456789 0123456789"
AUDIENCE = "chat"
ISSUER = "https://login.example"
MAX_PRESENCE_BYTES = 1024
HOUR = 3600
Make = Callable[[], str]
MARK = "hunter2-in-a-claim"
"""Stands in every payload, to be looked for in the log."""

OCT_SECRET = b"a secret that the provider publishes by mistake, 0123456789 0123456789"


def auth() -> dict[str, Any]:
    """The section ``[auth]``, but for the provider's address."""
    return {
        "secrets": [SECRET, OLDER_SECRET],
        "public_keys": [public_pem(rsa("login")), public_pem(ec("login"))],
        "audience": AUDIENCE,
        "issuer": ISSUER,
        "leeway_seconds": 10,
        "max_token_seconds": 86_400,
    }


def key_set() -> dict[str, Any]:
    """What the provider publishes: three keys for signatures, and what there is by mistake."""
    return {
        "keys": [
            public_jwk(rsa("provider"), "rsa-1", use="sig", alg="RS256"),
            public_jwk(ec("provider"), "ec-1", key_ops=["verify"]),
            public_jwk(ed("provider"), "ed-1"),
            {"kty": "oct", "kid": "oct-1", "k": segment(OCT_SECRET), "alg": "HS256"},
            public_jwk(ed("encryption"), "enc-1", use="enc"),
            public_jwk(ed("operation"), "ops-1", key_ops=["encrypt"]),
            public_jwk(ed("contradiction"), "alg-1", alg="ES256"),
            private_jwk(ed("private"), "private-1"),
            public_jwk(rsa("weak", 1024), "weak-1"),
            "no key at all",
        ]
    }


def segment(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims but for the changes; None takes a claim away."""
    now = int(time.time())
    usual = {"sub": "42", "iat": now, "exp": now + HOUR, "aud": AUDIENCE, "iss": ISSUER}
    return {k: v for k, v in (usual | {"note": MARK} | changes).items() if v is not None}


def signed(
    key: Any = SECRET,
    algorithm: str = "HS256",
    headers: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """A token with a good signature of a key."""
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


def raw(
    header: Any, payload: bytes | None = None, key: Any = SECRET, sign_as: str = "HS256"
) -> str:
    """A token with a good signature under a header and payload that no library would write."""
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = json.dumps(claims()).encode() if payload is None else payload
    return resigned(f"{segment(head)}.{segment(body)}", key, sign_as)


def resigned(unsigned: str, key: Any = SECRET, sign_as: str = "HS256") -> str:
    """Two segments with a good signature."""
    algorithm = jwt.get_algorithm_by_name(sign_as)
    material = key if isinstance(key, bytes) else algorithm.prepare_key(key)
    return f"{unsigned}.{segment(algorithm.sign(unsigned.encode(), material))}"


def payload(text: str | bytes) -> str:
    """A token with a good signature over any payload."""
    return raw({"alg": "HS256"}, text.encode() if isinstance(text, str) else text)


def _unsigned(algorithm: str) -> str:
    return raw({"alg": algorithm}).rpartition(".")[0] + "."


def _swapped() -> str:
    """The signature of one token on the payload of another."""
    return signed(sub="1").rpartition(".")[0] + "." + signed(sub="2").rpartition(".")[2]


def _not_canonical() -> str:
    """The same signature written otherwise: two bits of the last of its 43 characters mean nothing."""
    token = signed()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def _der_signature() -> str:
    """ES256 as OpenSSL writes it, not as RFC 7518, section 3.4, does."""
    unsigned = raw({"alg": "ES256"}).rpartition(".")[0]
    return f"{unsigned}.{segment(ec('login').sign(unsigned.encode(), ECDSA(SHA256())))}"


def _with_signature(header: dict[str, Any], signature: bytes) -> str:
    return f"{raw(header).rpartition('.')[0]}.{segment(signature)}"


def _now() -> int:
    return int(time.time())


def _claim(text: str) -> Make:
    """A token with a good signature over good claims and this JSON text of one more."""
    return lambda: payload(json.dumps(claims())[:-1] + f", {text}}}")


def _by_provider(key: Any, kid: str) -> Make:
    return lambda: signed(key, "EdDSA", {"kid": kid})


_BY_REASON: dict[str, dict[str, Make]] = {
    "token_malformed": {
        "one part": lambda: "garbage",
        "two parts": lambda: signed().rpartition(".")[0],
        "four parts": lambda: signed() + ".x",
        "five parts, encrypted": lambda: signed() + ".x.y",
        "nothing between dots": lambda: "..",
        "letters beyond ASCII": lambda: signed() + "é",
        "three letters beyond ASCII": lambda: "é.é.é",
        "a blank": lambda: signed().replace(".", ". ", 1),
        "a line break": lambda: signed() + "\n",
        "padding": lambda: signed() + "=",
        "the other alphabet": lambda: resigned("eyJhbGciOiJIUzI1NiJ9.+/+/"),
        "a foreign character": lambda: "!" + signed(),
        "spare bits": _not_canonical,
        "a header that is no JSON": lambda: raw(b"alg: HS256"),
        "a header that is a list": lambda: raw([]),
        "a header that is no UTF-8": lambda: raw(b'{"alg":"HS256","kid":"\xff"}'),
        "a header nested deeply": lambda: raw(b'{"alg":"HS256","x":' + b"[" * 3000),
        "a number for alg": lambda: raw({"alg": 256}),
        "null for alg": lambda: raw({"alg": None}),
        "a list for alg": lambda: raw({"alg": ["HS256"]}),
        "a number for kid": lambda: raw({"alg": "HS256", "kid": 1}),
        "a critical extension": lambda: raw({"alg": "HS256", "crit": ["exp"]}),
        "no critical extensions": lambda: raw({"alg": "HS256", "crit": []}),
        "null for crit": lambda: raw({"alg": "HS256", "crit": None}),
        "an unencoded payload": lambda: raw({"alg": "HS256", "b64": False}),
        "a payload that is no JSON": lambda: payload("{"),
        "an empty payload": lambda: payload(""),
        "a payload that is a list": lambda: payload("[]"),
        "a payload that is null": lambda: payload("null"),
        "a payload that is no UTF-8": lambda: payload(b'{"sub":"\xff"}'),
        "a payload nested deeply": lambda: payload("[" * 5000),
        "NaN for exp": lambda: payload('{"sub":"42","iat":1,"exp":NaN}'),
        "1e400 for exp": lambda: payload('{"sub":"42","iat":1,"exp":1e400}'),
        "half a surrogate in sub": lambda: payload('{"sub":"\\ud800"}'),
    },
    "token_too_long": {
        "too long": lambda: signed(x="x" * (MAX_TOKEN_BYTES * 3 // 4)),
        "too long and no token": lambda: "x" * (MAX_TOKEN_BYTES + 1),
    },
    "token_algorithm": {
        "none": lambda: _unsigned("none"),
        "None": lambda: _unsigned("None"),
        "nOnE": lambda: _unsigned("nOnE"),
        "none, signed": lambda: raw({"alg": "none"}),
        "no alg": lambda: raw({"typ": "JWT"}),
        "an empty alg": lambda: raw({"alg": ""}),
        "hs256": lambda: raw({"alg": "hs256"}),
        "HS384": lambda: signed(algorithm="HS384"),
        "HS512": lambda: signed(algorithm="HS512"),
        "RS384": lambda: signed(rsa("login"), "RS384"),
        "RS512": lambda: signed(rsa("login"), "RS512"),
        "PS256": lambda: signed(rsa("login"), "PS256"),
        "RS512 of the provider": lambda: signed(rsa("provider"), "RS512", {"kid": "rsa-1"}),
        "ES256 for an RSA key": lambda: signed(ec("evil"), "ES256", {"kid": "rsa-1"}),
        "EdDSA for an EC key": lambda: signed(ed("evil"), "EdDSA", {"kid": "ec-1"}),
    },
    "token_signature": {
        "another secret": lambda: signed(FOREIGN_SECRET),
        "no signature": lambda: signed().rpartition(".")[0] + ".",
        "a cut signature": lambda: signed()[:-5] + "A",
        "another token's signature": _swapped,
        "an empty secret": lambda: raw({"alg": "HS256"}, key=b""),
        "kid as a path": lambda: raw({"alg": "HS256", "kid": "../../dev/null"}, key=b""),
        "RS256's key as a secret": lambda: raw(
            {"alg": "HS256"}, key=public_pem(rsa("login")).encode()
        ),
        "the same without its last line break": lambda: raw(
            {"alg": "HS256"}, key=public_pem(rsa("login")).strip().encode()
        ),
        "ES256's key as a secret": lambda: raw(
            {"alg": "HS256"}, key=public_pem(ec("login")).encode()
        ),
        "the provider's key as a secret": lambda: raw(
            {"alg": "HS256", "kid": "rsa-1"},
            key=json.dumps(public_jwk(rsa("provider"), "rsa-1")).encode(),
        ),
        "the secret published by mistake": lambda: raw(
            {"alg": "HS256", "kid": "oct-1"}, key=OCT_SECRET
        ),
        "a secret's signature as RS256": lambda: raw({"alg": "RS256"}),
        "a secret's signature as EdDSA": lambda: raw({"alg": "EdDSA"}),
        "another RSA key": lambda: signed(rsa("evil"), "RS256"),
        "another RSA key under a good kid": lambda: signed(rsa("evil"), "RS256", {"kid": "rsa-1"}),
        "another EC key": lambda: signed(ec("evil"), "ES256"),
        "another Ed25519 key": lambda: signed(ed("evil"), "EdDSA", {"kid": "ed-1"}),
        "a weak RSA key": lambda: raw(
            {"alg": "RS256", "kid": "weak-1"}, key=rsa("weak", 1024), sign_as="RS256"
        ),
        "ES256 in DER": _der_signature,
        "ES256 of zeros": lambda: _with_signature({"alg": "ES256"}, bytes(64)),
        "ES256 that is too short": lambda: _with_signature({"alg": "ES256"}, bytes(63)),
        "EdDSA of zeros": lambda: _with_signature({"alg": "EdDSA", "kid": "ed-1"}, bytes(64)),
        "RS256 of one byte": lambda: _with_signature({"alg": "RS256"}, b"\x01"),
        "a key in the header": lambda: signed(
            rsa("evil"), "RS256", {"jwk": public_jwk(rsa("evil"))}
        ),
        "the address of a key": lambda: signed(
            ec("evil"), "ES256", {"jku": "http://127.0.0.1:1/evil"}
        ),
        "a certificate in the header": lambda: signed(ec("evil"), "ES256", {"x5c": ["MII="]}),
    },
    "token_key": {
        "a made-up kid": _by_provider(ed("evil"), "made-up"),
        "a good key under a made-up kid": _by_provider(ed("provider"), "made-up"),
        "a key to encrypt with": _by_provider(ed("encryption"), "enc-1"),
        "a key whose operations are others": _by_provider(ed("operation"), "ops-1"),
        "a key of a contradicting alg": _by_provider(ed("contradiction"), "alg-1"),
        "a private key published by mistake": _by_provider(ed("private"), "private-1"),
    },
    "token_claims": {
        "no sub": lambda: signed(sub=None),
        "an empty sub": lambda: signed(sub=""),
        "a number for sub": lambda: payload(json.dumps(claims(sub=42))),
        "a sub above the limit": lambda: signed(sub="x" * 251),
        "a sub above the limit in bytes": lambda: signed(sub="ü" * 126),
        "no iat": lambda: signed(iat=None),
        "no exp": lambda: signed(exp=None),
        "a string for iat": lambda: signed(iat=str(_now())),
        "a string for exp": lambda: signed(exp=str(_now() + HOUR)),
        "true for iat": lambda: signed(iat=True),
        "a giant exp": lambda: signed(exp=10**400),
        "a giant negative iat": lambda: signed(iat=-(10**400)),
        "a string for nbf": lambda: signed(nbf=str(_now())),
        "no aud": lambda: signed(aud=None),
        "no iss": lambda: signed(iss=None),
        "a number for jti": _claim('"jti": 7'),
        "an empty jti": _claim('"jti": ""'),
        "a jti above the limit": _claim(f'"jti": "{"x" * (MAX_ID_CHARACTERS + 1)}"'),
        "a string for topics": _claim('"topics": "room:*"'),
        "a number among topics": _claim('"topics": ["room:1", 2]'),
        "an empty topic": _claim('"topics": [""]'),
        "a star amid a topic": _claim('"topics": ["room:*:1"]'),
        "two stars": _claim('"topics": ["**"]'),
        "a placeholder": _claim('"topics": ["user:{sub}"]'),
        "a brace": _claim('"topics": ["user:}"]'),
        "a topic above the limit": _claim(f'"topics": ["{"x" * 256}"]'),
        "topics above the limit": _claim(f'"topics": {json.dumps(["a"] * (MAX_TOPICS + 1))}'),
        "a string for max_sessions": _claim('"max_sessions": "1"'),
        "a fraction for max_sessions": _claim('"max_sessions": 1.0'),
        "true for max_sessions": _claim('"max_sessions": true'),
        "no sessions": _claim('"max_sessions": 0'),
        "sessions above the limit": _claim(f'"max_sessions": {MAX_SESSIONS + 1}'),
        "a string for device": _claim('"device": "phone"'),
        "a number for a device's id": _claim('"device": {"id": 7}'),
        "a device's name above the limit": _claim(f'"device": {{"name": "{"x" * 129}"}}'),
        "a list for presence": _claim('"presence": []'),
        "a presence above the limit": _claim(f'"presence": {{"a": "{"x" * MAX_PRESENCE_BYTES}"}}'),
    },
    "token_expired": {
        "expired": lambda: signed(iat=_now() - 120, exp=_now() - 60),
        "long expired": lambda: signed(iat=1, exp=2),
        "of the provider and expired": lambda: signed(
            ed("provider"), "EdDSA", {"kid": "ed-1"}, iat=1, exp=2
        ),
    },
    "token_not_yet_valid": {
        "issued in the future": lambda: signed(iat=_now() + 600, exp=_now() + HOUR),
        "issued in the future and valid before": lambda: signed(
            iat=_now() + 600, nbf=_now() - 60, exp=_now() + HOUR
        ),
        "not before the future": lambda: signed(nbf=_now() + 600),
    },
    "token_lifetime": {
        "for too long": lambda: signed(exp=_now() + 86_400 + 60),
        "for ever": lambda: signed(exp=2**52),
    },
    "token_issuer": {
        "another's iss": lambda: signed(iss="https://evil.example"),
        "almost the same iss": lambda: signed(iss=ISSUER + "/"),
        "a list for iss": lambda: payload(json.dumps(claims(iss=[ISSUER]))),
    },
    "token_audience": {
        "another's aud": lambda: signed(aud="mail"),
        "others' aud": lambda: signed(aud=["mail", "Chat"]),
        "nobody's aud": lambda: signed(aud=[]),
        "a number for aud": lambda: payload(json.dumps(claims(aud=7))),
    },
}


class Bad(NamedTuple):
    """A token that must be refused."""

    name: str
    make: Make
    reason: str


BAD_TOKENS = [
    Bad(name, make, reason) for reason, group in _BY_REASON.items() for name, make in group.items()
]


def good_tokens() -> dict[str, str]:
    """One token for each key that is trusted."""
    return {
        "the first secret": signed(SECRET),
        "the second secret": signed(OLDER_SECRET),
        "a secret and a kid": signed(SECRET, headers={"kid": "any"}),
        "a configured RSA key": signed(rsa("login"), "RS256"),
        "a configured EC key": signed(ec("login"), "ES256"),
        "the provider's RSA key": signed(rsa("provider"), "RS256", {"kid": "rsa-1"}),
        "the provider's EC key": signed(ec("provider"), "ES256", {"kid": "ec-1"}),
        "the provider's Ed25519 key": signed(ed("provider"), "EdDSA", {"kid": "ed-1"}),
        "the provider without a kid": signed(ed("provider"), "EdDSA"),
        "among several audiences": signed(aud=["mail", AUDIENCE]),
    }
