"""Checks the syntax of single values: each function says what is allowed if the value is not.

They are attached to the keys in :mod:`gateway.config.sections`.
"""

import base64
import binascii
import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from gateway.config.address import parse_address

Syntax: TypeAlias = Callable[[str], str | None]
"""Given a value, None when it is right, else what is allowed."""

PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")
_ORIGIN: Final = re.compile(
    r"(?:[a-z][a-z0-9+.-]*:)?//(?:\*\.)?(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?"
)
_HEADER_VALUE: Final = re.compile(r"[!-~]+")
_BUS_SCHEMES: Final = ("nats", "tls")


def address(value: str) -> str | None:
    """An address to listen on."""
    try:
        parse_address(value)
    except ValueError:
        return "host:port, such as 0.0.0.0:4000 or [::1]:4000"
    return None


def bus_url(value: str) -> str | None:
    """``memory://`` or NATS servers."""
    if value == "memory://" or all(map(_is_server, value.split(","))):
        return None
    return (
        "memory://, or NATS servers separated by commas, each nats://host:port or tls://host:port,"
        " with / ? # in a password or a token written %2F %3F %23"
    )


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url.strip())
        behind = parts.path not in {"", "/"} or parts.query or parts.fragment
        return (
            parts.scheme in _BUS_SCHEMES and bool(parts.hostname) and parts.port != 0 and not behind
        )
    except ValueError:  # a port that is no number, an unclosed bracket
        return False


def personal_topic(value: str) -> str | None:
    """A topic made of a user's id."""
    if PLACEHOLDER.findall(value) == ["sub"] and not re.search(
        r"[*{}]", value.replace("{sub}", "")
    ):
        return None
    return "a topic with the placeholder {sub} and no other, such as user:{sub}"


def subject_token(value: str) -> str | None:
    """One token of a NATS subject."""
    if _TOKEN.fullmatch(value):
        return None
    return "letters, digits, _ and -"


def origin(value: str) -> str | None:
    """An entry of ``allowed_origins``."""
    if value == "*" or (_ORIGIN.fullmatch(value) and _has_port(value)):
        return None
    return '"*", or an origin without a path: https://app.example.com, //host:8443, //*.example.com'


def _has_port(value: str) -> bool:
    try:
        return urlsplit(value).port != 0
    except ValueError:
        return False


def network(value: str) -> str | None:
    """An IP network."""
    try:
        ip_network(value)
    except ValueError:
        return "a network such as 10.0.0.0/8 or fd00::/8, or one address"
    return None


def header_value(value: str) -> str | None:
    """What can be sent in an HTTP header: an API key."""
    return None if _HEADER_VALUE.fullmatch(value) else "printable ASCII characters without blanks"


def pattern(value: str) -> str | None:
    """A channel pattern.

    A placeholder stands for a whole part between colons: ``user:x{sub}`` would let user ``2`` choose
    what is meant by ``x12`` where a user ``12`` exists.
    """
    body = value.removesuffix("*")
    rest = PLACEHOLDER.sub("", body)
    if not value:
        return "a topic, a prefix that ends in *, or placeholders as in user:{sub}"
    if "*" in rest:
        return "* at the end only"
    if "{" in rest or "}" in rest:
        return "placeholders as in user:{sub}: the name of a claim between braces"
    parts = body.split(":")
    if any(PLACEHOLDER.search(part) and not PLACEHOLDER.fullmatch(part) for part in parts):
        return "a placeholder that is a whole part between colons, as in user:{sub}:inbox"
    if value.endswith("*") and PLACEHOLDER.fullmatch(parts[-1]):
        return "a colon between a placeholder and *, as in user:{sub}:*"
    return None


def http_url(value: str) -> str | None:
    """An address to send requests to; empty for none."""
    try:
        parts = urlsplit(value)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, an unclosed bracket
        fits = False
    plain = value.isascii() and value.isprintable() and " " not in value
    if not value or (fits and plain and not parts.fragment):
        return None
    return "an address such as https://backend.example.com/gateway"


def webhook_secret(value: str) -> str | None:
    """A symmetric secret of Standard Webhooks: ``whsec_`` and the base64 of 24 to 64 bytes."""
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if value.startswith("whsec_") and 24 <= len(key) <= 64:
        return None
    return "whsec_ followed by 24 to 64 bytes in base64"
