"""Keys that verify tokens, each with the one algorithm its type is for.

Choosing the algorithm by the token's header would let anybody sign with ``none``, or with a public key taken
for a secret (RFC 8725, section 3.1). Here the header only finds keys; what a key does with a signature was
settled when the key was read.
"""

import re
from collections.abc import Iterable, Sequence
from hmac import compare_digest, digest
from pathlib import Path
from typing import Final, Protocol

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import Algorithm, ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError

from gateway.auth.jws import Jws
from gateway.errors import ConfigError

HS256: Final = "HS256"
RS256: Final = "RS256"
ES256: Final = "ES256"
EDDSA: Final = "EdDSA"

PUBLIC_ALGORITHMS: Final = frozenset({RS256, ES256, EDDSA})
"""Those of public keys, which an identity provider may have."""

RSA_BITS: Final = range(2048, 8192 + 1)
"""RFC 7518, section 3.3, asks for 2048. Each doubling makes verifying four times as slow."""

MAX_PEM_BYTES: Final = 65_536

_ALGORITHMS: Final[dict[str, Algorithm]] = {
    RS256: RSAAlgorithm(RSAAlgorithm.SHA256),
    ES256: ECAlgorithm(ECAlgorithm.SHA256),
    EDDSA: OKPAlgorithm(),
}

_BEGIN: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")


class KeySettings(Protocol):
    """The ``[auth]`` section, as far as keys are concerned."""

    @property
    def secrets(self) -> Sequence[str]: ...
    @property
    def public_keys(self) -> Sequence[str]: ...


class UnusableKey(Exception):
    """A key that verifies nothing here; the text says why, and holds nothing of the key."""


class Key(msgspec.Struct, frozen=True):
    """A key.

    Attributes:
        algorithm: The only one it verifies.
        material: The secret, or the public key of that algorithm's type.
        key_id: ``kid``; None where it has none, as configured keys do.
    """

    algorithm: str
    material: object
    key_id: str | None = None

    def verifies(self, jws: Jws) -> bool:
        """Whether a token was signed with this key."""
        if isinstance(self.material, bytes):
            # a secret; PyJWT makes an object for each signature, which takes four times as long
            return compare_digest(digest(self.material, jws.signed, "sha256"), jws.signature)
        return _ALGORITHMS[self.algorithm].verify(jws.signed, self.material, jws.signature)


class KeySet:
    """Some keys, to find those that may have signed a token."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self.keys: Final = tuple(keys)

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, jws: Jws) -> list[Key]:
        """Keys of the token's algorithm: those with its key id or none, all if it does not name one."""
        return [
            key
            for key in self.keys
            if key.algorithm == jws.algorithm
            and (key.key_id is None or jws.key_id is None or key.key_id == jws.key_id)
        ]

    def knows(self, key_id: str) -> bool:
        """Whether a key has that id."""
        return any(key.key_id == key_id for key in self.keys)

    def same(self, other: "KeySet") -> bool:
        """Whether they are the same keys, in any order."""
        return len(self) == len(other) and all(key in other.keys for key in self.keys)


def configured_keys(settings: KeySettings) -> KeySet:
    """The keys of the configuration, those in files read.

    Raises:
        ConfigError: With all that cannot be used, never with anything of the keys.
    """
    keys, problems = [], []
    for name, values, read in (
        ("secrets", settings.secrets, secret_key),
        ("public_keys", settings.public_keys, _public_key_of),
    ):
        for index, value in enumerate(values):
            try:
                keys.append(read(value))
            except UnusableKey as problem:
                problems.append(f"auth.{name}[{index}]: {problem}")
    if problems:
        raise ConfigError(*problems)
    return KeySet(keys)


def secret_key(secret: str) -> Key:
    """The key of a shared secret.

    Raises:
        UnusableKey: It is a public key, with which anybody could sign, or a private one.
    """
    try:
        return Key(HS256, HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret))
    except InvalidKeyError:
        raise UnusableKey(
            "is not allowed; it is no secret but a key or certificate, and public keys belong in"
            " auth.public_keys"
        ) from None


def public_key(material: object, key_id: str | None = None) -> Key:
    """The key of a public key as cryptography knows it.

    Raises:
        UnusableKey: It is of a type, size or curve that is not supported.
    """
    if isinstance(material, RSAPublicKey):
        if material.key_size not in RSA_BITS:
            raise UnusableKey(
                f"an RSA key of {material.key_size} bits is not allowed;"
                f" allowed: {RSA_BITS[0]} to {RSA_BITS[-1]} bits"
            )
        return Key(RS256, material, key_id)
    if isinstance(material, EllipticCurvePublicKey):
        if not isinstance(material.curve, SECP256R1):
            raise UnusableKey(
                f"an EC key of the curve {material.curve.name} is not allowed; allowed: P-256"
            )
        return Key(ES256, material, key_id)
    if isinstance(material, Ed25519PublicKey):
        return Key(EDDSA, material, key_id)
    raise UnusableKey("a key of this type is not allowed; allowed: RSA, EC P-256, Ed25519")


def read_pem(text: str) -> Key:
    """The public key in a PEM text.

    Raises:
        UnusableKey: There is none, or more, or one that is not supported.
    """
    labels = _BEGIN.findall(text)
    if len(labels) > 1:
        raise UnusableKey("must be one PEM block; list several keys one by one")
    if labels and "PRIVATE KEY" in labels[0]:
        raise UnusableKey(
            "must be a public key, and is a private one;"
            ' "openssl pkey -pubout" prints the public key that belongs to it'
        )
    if labels and "CERTIFICATE" in labels[0]:
        raise UnusableKey(
            "must be a public key, and is a certificate;"
            ' "openssl x509 -pubkey -noout" prints the public key in it'
        )
    try:
        material = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKey("is no public key in PEM that can be read") from None
    return public_key(material)


def _public_key_of(value: str) -> Key:
    """The key of one entry of ``auth.public_keys``: PEM text, or the path of a PEM file."""
    if _BEGIN.search(value):
        return read_pem(value)
    try:
        with Path(value).open("rb") as file:
            text = file.read(MAX_PEM_BYTES).decode()
    except (OSError, ValueError):
        # not shown: it may be a key that was pasted without its first line
        raise UnusableKey("is neither PEM text nor the path of a file that can be read") from None
    return read_pem(text)
