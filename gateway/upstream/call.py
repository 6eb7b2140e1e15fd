"""The HTTP form of callbacks: CloudEvents 1.0 in binary mode, signed by Standard Webhooks 1.0."""

import base64
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import quote

import msgspec

from gateway.device import UNKNOWN, Device

CONNECT: Final = "gateway.connect"
JOIN: Final = "gateway.join"
PUSH: Final = "gateway.push"

_ASKED: Final = frozenset({CONNECT, JOIN, PUSH})
"""Types that ask for a client; all others tell of one."""

_PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_UNCHANGED: Final = _PRINTABLE.replace('"', "").replace("%", "")
"""What the CloudEvents HTTP binding (3.1.3.2) leaves as it is in a header's value."""

_TRACEPARENT: Final = re.compile(
    # W3C Trace Context, 3.2.2: version ff and ids of zeros alone are invalid
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)

_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct, frozen=True, gc=False):
    """What a callback says; what is absent is left away.

    Attributes:
        type: One of the types above, or an event such as ``gateway.user.online``; a label of metrics too.
        session: The socket it is about; empty for what is about no single one.
        user: None for an anonymous client.
        state: What the backend keeps with the session, as JSON; goes where a session goes.
        payload: A push's payload, as JSON.
        params: A join's payload or a handshake's parameters, as JSON.
        traceparent: As the client sent it, whatever that is.
        replica: The one that was lost.
        sessions: How many it had.
        ip: The client's address, which is not said.
    """

    type: str
    session: str = ""
    user: str | None = None
    device: Device | None = None
    state: bytes = b"null"
    topic: str | None = None
    event: str | None = None
    payload: bytes | None = None
    params: bytes | None = None
    traceparent: str = ""
    replica: str | None = None
    sessions: int | None = None
    ip: str = ""

    @property
    def client(self) -> str:
        """On whose account it goes, such as ``user 42``.

        That is a user, with all her sockets, or the network of who is anonymous. What the backend is told
        of a user goes on another account than what she asks for: neither holds up the other.
        """
        if self.type not in _ASKED:
            return f"events of {self.user}"
        return f"anonymous {_network(self.ip)}" if self.user is None else f"user {self.user}"


def body(call: Call) -> bytes:
    """The request's body: one compact JSON object.

    Its JSON parts are joined as they are, never decoded or encoded again, so a payload arrives byte for
    byte. Type, user and device stand here although headers have them too: the signature covers the
    body and not those headers, and a backend must not act on what anybody on the way could change.
    """
    parts = [b'{"type":', _encode(call.type)]
    if call.session:
        parts += (b',"session":', _encode(call.session))
    if call.user is not None:
        parts += (b',"user":', _encode(call.user))
    if call.device is not None and call.device != UNKNOWN:
        parts += (b',"device":', _encode(call.device))
    if call.session:
        parts += (b',"state":', call.state)
    if call.topic is not None:
        parts += (b',"topic":', _encode(call.topic))
    if call.event is not None:
        parts += (b',"event":', _encode(call.event))
    if call.payload is not None:
        parts += (b',"payload":', call.payload)
    if call.params is not None:
        parts += (b',"params":', call.params)
    if call.replica is not None:
        parts += (b',"replica":', _encode(call.replica))
    if call.sessions is not None:
        parts += (b',"sessions":', _encode(call.sessions))
    parts.append(b"}")
    return b"".join(parts)


def source(replica: str) -> str:
    """The header ``ce-source`` of a replica's callbacks: a URI, encoded once more for the header."""
    return _header_value("urn:gateway:" + quote(replica, safe=""))


def headers(
    call: Call,
    content: bytes,
    *,
    call_id: str,
    source: str,
    occurred_at: float,
    now: float,
    secrets: Sequence[str],
) -> dict[str, str]:
    """The request's headers. Names are fixed: nothing a client sent ever becomes one.

    Args:
        content: The body, which is signed.
        call_id: Stays the same when the callback is repeated, as does ``occurred_at``.
        source: See :func:`source`.
        occurred_at: When what it is about happened, unix seconds.
        now: When it is sent, unix seconds; receivers refuse what is signed minutes ago.
    """
    fields = {
        "content-type": "application/json",
        "ce-specversion": "1.0",
        "ce-id": call_id,
        "ce-type": call.type,
        "ce-source": source,
        "ce-time": _rfc3339(occurred_at),
        "webhook-id": call_id,
        "webhook-timestamp": str(int(now)),
    }
    if call.user is not None:
        fields["ce-subject"] = _header_value(call.user)
    if secrets:
        fields["webhook-signature"] = sign(secrets, call_id, int(now), content)
    if _TRACEPARENT.fullmatch(call.traceparent):
        fields["traceparent"] = call.traceparent
    return fields


def sign(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature``: one signature for each secret, separated by blanks.

    All secrets sign, so that the backend may verify with the old one or the new one while they are
    being changed.

    Args:
        message_id: The header ``webhook-id``.
        timestamp: The header ``webhook-timestamp``, unix seconds.
        body: The bytes of the request's body.

    Source: Standard Webhooks 1.0, "Signature scheme" and "Multiple signatures".
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return " ".join(["v1," + _signature(secret, content) for secret in secrets])


def _network(ip: str) -> str:
    """What one host has: an IPv4 address, or the 64 bits before the part of an IPv6 one it chooses itself."""
    return IPv6Address(ip).exploded[:19] if ":" in ip else ip


def _header_value(text: str) -> str:
    return quote(text, safe=_UNCHANGED)


def _rfc3339(unix_seconds: float) -> str:
    text = datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()
