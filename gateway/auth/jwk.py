"""Reads the keys that an identity provider publishes, a JSON Web Key set (RFC 7517, section 5)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from gateway.auth.jws import UNREADABLE
from gateway.auth.keys import Key, KeySet, UnusableKey, public_key
from gateway.errors import FetchError

MAX_KEYS: Final = 32
"""Keys taken of a set. A token without a key id is tried with all of its algorithm."""

_PUBLIC: Final[Mapping[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], object]]]] = {
    # members of the public key (RFC 7518, sections 6.2 and 6.3; RFC 8037, section 2), and what reads them
    "RSA": (("n", "e"), RSAAlgorithm.from_jwk),
    "EC": (("crv", "x", "y"), ECAlgorithm.from_jwk),
    "OKP": (("crv", "x"), OKPAlgorithm.from_jwk),
}

_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


class _Document(msgspec.Struct):
    keys: list[object]


_document: Final = msgspec.json.Decoder(_Document)


def read_key_set(document: bytes) -> tuple[KeySet, int]:
    """The keys of a set, and how many of its entries are none that can be used.

    A set may hold keys for other purposes, which are no problem (section 5); one without any is a set, too.

    Raises:
        FetchError: It is no key set.
    """
    try:
        entries = _document.decode(document).keys
    except UNREADABLE:
        raise FetchError("the answer is no key set") from None
    keys: list[Key] = []
    for entry in entries:
        if len(keys) == MAX_KEYS:
            break
        try:
            keys.append(read_jwk(entry))
        except UnusableKey:
            continue
    return KeySet(keys), len(entries) - len(keys)


def read_jwk(jwk: object) -> Key:
    """The key of one entry.

    Raises:
        UnusableKey: It is malformed, not for signatures, or of an algorithm that is not supported.
    """
    if not isinstance(jwk, dict):
        raise UnusableKey("is no object")
    kind, key_id = jwk.get("kty"), jwk.get("kid")
    # another type is, among others, oct: a shared secret, which nobody should publish
    if not isinstance(kind, str) or kind not in _PUBLIC:
        raise UnusableKey("is of another type")
    if key_id is not None and not isinstance(key_id, str):
        raise UnusableKey("has a key id that is no string")
    if jwk.keys() & _PRIVATE:
        # everybody who can fetch the set could sign
        raise UnusableKey("is a private key")
    if jwk.get("use", "sig") != "sig" or not _may_verify(jwk.get("key_ops", ["verify"])):
        raise UnusableKey("is not for signatures")
    members, read = _PUBLIC[kind]
    try:
        material = read({"kty": kind} | {name: jwk[name] for name in members})
    except (KeyError, TypeError, ValueError, PyJWTError, UnsupportedAlgorithm):
        raise UnusableKey("is malformed") from None
    key = public_key(material, key_id)
    if jwk.get("alg", key.algorithm) != key.algorithm:
        raise UnusableKey("is for another algorithm")
    return key


def _may_verify(operations: object) -> bool:
    return isinstance(operations, list) and "verify" in operations
