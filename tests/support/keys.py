"""Key pairs as a login or an identity provider has them."""

from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    SECP384R1,
    EllipticCurve,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
Jwk = dict[str, Any]

ALGORITHMS = ("RS256", "ES256", "EdDSA")


@cache
def rsa(name: str, bits: int = 2048) -> RSAPrivateKey:
    """An RSA key, always the same for one name."""
    del name
    return generate_rsa(65_537, bits)


@cache
def ec(name: str, curve: type[EllipticCurve] = SECP256R1) -> EllipticCurvePrivateKey:
    """A key on a curve."""
    del name
    return generate_private_key(curve())


@cache
def ed(name: str) -> Ed25519PrivateKey:
    """An Ed25519 key."""
    del name
    return Ed25519PrivateKey.generate()


def private_key(algorithm: str, name: str) -> PrivateKey:
    """A key for one of :data:`ALGORITHMS`."""
    makers: dict[str, Any] = {"RS256": rsa, "ES256": ec, "EdDSA": ed}
    key: PrivateKey = makers[algorithm](name)
    return key


def public_pem(key: Any) -> str:
    """Its public key, as ``openssl pkey -pubout`` prints it."""
    form = PublicFormat.SubjectPublicKeyInfo
    text: str = key.public_key().public_bytes(Encoding.PEM, form).decode()
    return text


def private_pem(key: Any) -> str:
    """The key itself."""
    text: str = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text


def public_jwk(key: Any, kid: str | None = None, **members: Any) -> Jwk:
    """Its public key as an entry of a key set; further members extend or replace the usual ones."""
    return _jwk(key.public_key(), kid) | members


def private_jwk(key: Any, kid: str | None = None) -> Jwk:
    """The key itself as an entry of a key set."""
    return _jwk(key, kid)


def _jwk(key: Any, kid: str | None) -> Jwk:
    name = type(key).__name__
    if "RSA" in name:
        jwk = RSAAlgorithm.to_jwk(key, as_dict=True)
        del jwk["key_ops"]
    elif "Elliptic" in name or "EC" in name:
        jwk = ECAlgorithm.to_jwk(key, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(key, as_dict=True)
    return jwk | ({} if kid is None else {"kid": kid})


__all__ = ["ALGORITHMS", "SECP384R1", "Jwk", "PrivateKey", "ec", "ed", "private_key", "rsa"]
