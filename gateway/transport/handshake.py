"""Checks a client's HTTP request before it becomes a socket.

The order is Phoenix's (``Phoenix.Transports.WebSocket``): origin, subprotocol, who it is, protocol
version, and only then whether it is a WebSocket upgrade at all. A refusal says what, for log and metric;
the client gets the status alone, as with Phoenix, since browsers show a page neither body nor status.
"""

import base64
import binascii
import re
import sys
from collections.abc import Iterator
from typing import Final

import msgspec
from aiohttp import hdrs

from gateway.auth.admission import Admission
from gateway.auth.claims import Claims
from gateway.auth.refusal import TokenRefusal
from gateway.channels.callbacks import Callbacks
from gateway.channels.encoding import Encodings, SocketEncoding
from gateway.device import UNKNOWN, Device, parse_device
from gateway.errors import TokenError, UpstreamError, UpstreamRefused, UpstreamTimeout
from gateway.protocol.messages import NULL, Json, encode_json
from gateway.sessions.client import Origin
from gateway.transport.compression import negotiate
from gateway.transport.origin import OriginPolicy
from gateway.transport.peer import PeerAddress
from gateway.transport.request import HandshakeRequest

ORIGIN: Final = "origin"
"""Reason of a refusal because of the page that asks."""

SUBPROTOCOL: Final = "phoenix"
BEARER_SUBPROTOCOL: Final = "base64url.bearer.phx."
"""phoenix.js 1.8 sends its authToken behind this prefix: base64 of either alphabet, unpadded."""

AUTH_HEADER: Final = "X-Phoenix-AuthToken"
"""Where phoenix.js 1.8 puts its authToken when it polls."""

_BEARER: Final = "bearer "
_VERSION: Final = re.compile(
    r"([12])\.0\.(?:0|[1-9]\d*)(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?", re.ASCII
)
"""What ``~> 1.0.0`` and ``~> 2.0.0`` take: a build (Semantic Versioning, 10) makes no difference."""
_DEFAULT_VERSION: Final = "1.0.0"

_KEY: Final = re.compile(r"[0-9A-Za-z+/]{22}==")
"""Base64 of 16 bytes."""

MAX_TRACEPARENT: Final = 64
"""Characters kept of a handshake's traceparent, which has 55 if it is one."""

MAX_USER_AGENT: Final = 256
"""Characters kept of a client's User-Agent."""


class Refused(Exception):
    """The request does not become a socket.

    Attributes:
        status: 400 not the request it should be, 403 not allowed, 503 not now.
        reason: Stable label for log and metric.
        advice: What to write instead, for whoever wrote the client; empty where the status is all it is told.
    """

    def __init__(self, status: int, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.advice = advice


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What a handshake settled.

    Attributes:
        claims: Who it is; None for an anonymous socket.
        device: What the backend or its token says of the device, else what its query does.
        state: What the backend keeps with the session.
        traceparent: As the request has it (W3C Trace Context).
        subprotocol: To select in the answer; None where the client offered none but a token.
        extension: What the answer says in ``Sec-WebSocket-Extensions``; empty where nothing was agreed.
    """

    claims: Claims | None
    device: Device
    state: Json
    traceparent: str
    encoding: SocketEncoding
    subprotocol: str | None
    extension: str = ""


class Handshake:
    """Checks requests for a socket.

    Args:
        websocket: The forms in which messages go over a WebSocket, by protocol version.
        compressed: The same for clients that agree to compression; None where it is off.
        longpoll: Those in which they are polled.
    """

    def __init__(
        self,
        admission: Admission,
        origins: OriginPolicy,
        callbacks: Callbacks,
        peers: PeerAddress,
        *,
        websocket: Encodings,
        compressed: Encodings | None = None,
        longpoll: Encodings,
    ) -> None:
        self._admission = admission
        self._origins = origins
        self._callbacks = callbacks
        self._peers = peers
        self._websocket = websocket
        self._compressed = compressed
        self._longpoll = longpoll

    async def websocket(self, request: HandshakeRequest, session: str) -> Accepted:
        """Go through all checks; the backend is asked last, so that only real sockets cost it anything.

        Args:
            session: Id the socket will have.

        Raises:
            Refused: At the first that fails.
        """
        if request.method != hdrs.METH_GET:
            raise Refused(400, "bad_method")
        self.origin(request)
        subprotocol, protocol_token = _subprotocol(request)
        token = _last(request, "token") or _authorization(request) or protocol_token
        encodings, extension = self._websocket, ""
        if self._compressed is not None:
            extension = negotiate(request.headers.getall(hdrs.SEC_WEBSOCKET_EXTENSIONS, ()))
            encodings = self._compressed if extension else encodings
        accepted = await self._accept(request, token, encodings, subprotocol, extension)
        if not _is_upgrade(request):
            raise Refused(400, "no_upgrade")
        return await self._ask(request, session, accepted)

    async def longpoll(self, request: HandshakeRequest, session: str) -> Accepted:
        """The same for a session whose client polls (``Phoenix.Transports.LongPoll``).

        Raises:
            Refused: At the first check that fails.
        """
        return await self.plain(request, session, self._longpoll)

    async def plain(
        self, request: HandshakeRequest, session: str, encodings: Encodings
    ) -> Accepted:
        """The same for a client that speaks no WebSocket, and gets messages in some other form.

        Raises:
            Refused: At the first check that fails.
        """
        self.origin(request)
        shown = request.headers.get(AUTH_HEADER)
        token = _last(request, "token") or _authorization(request) or shown
        accepted = await self._accept(request, token, encodings)
        return await self._ask(request, session, accepted)

    def origin(self, request: HandshakeRequest) -> None:
        """Check the origin of the page that sends the request.

        Raises:
            Refused: It is not allowed.
        """
        if not self._origins.allows(request.headers.get(hdrs.ORIGIN), request.host):
            raise Refused(403, ORIGIN)

    async def _accept(
        self,
        request: HandshakeRequest,
        token: str | None,
        encodings: Encodings,
        subprotocol: str | None = None,
        extension: str = "",
    ) -> Accepted:
        """Who it is, on which device, and how it speaks."""
        try:
            claims = await self._admission.connect(token, _last(request, "user_id"))
        except TokenError as error:
            # it may be a good one: nobody can say until the provider's keys are there
            status = 503 if error.reason == TokenRefusal.KEYS_UNAVAILABLE else 403
            raise Refused(status, error.reason) from None
        device = _device(request, claims)
        encoding = _encoding(request, encodings)
        traceparent = request.headers.get("traceparent", "")[:MAX_TRACEPARENT]
        return Accepted(claims, device, NULL, traceparent, encoding, subprotocol, extension)

    async def _ask(self, request: HandshakeRequest, session: str, accepted: Accepted) -> Accepted:
        """Ask the backend, if it wants to be asked."""
        if not self._callbacks.asks_connect:
            return accepted
        origin = describe(request, accepted, self._peers.of(request))
        params = _params(request, verified=accepted.claims is not None)
        try:
            answer = await self._callbacks.connect(session, accepted.claims, origin, params)
        except UpstreamRefused as refused:
            busy = refused.status in (408, 429)
            raise Refused(503 if busy else 403, "upstream_refused") from None
        except UpstreamTimeout:
            raise Refused(503, "upstream_timeout") from None
        except UpstreamError:
            raise Refused(503, "upstream_unavailable") from None
        try:
            claims = self._admission.named(answer.user, accepted.claims)
        except TokenError as error:
            raise Refused(403, error.reason) from None
        return msgspec.structs.replace(
            accepted,
            claims=claims,
            device=answer.device or accepted.device,
            state=answer.state or NULL,
        )


def _is_upgrade(request: HandshakeRequest) -> bool:
    """Whether it asks for a WebSocket (RFC 6455 section 4.2.1)."""
    return (
        "websocket" in _tokens(request, hdrs.UPGRADE)
        and "upgrade" in _tokens(request, hdrs.CONNECTION)
        and request.headers.get(hdrs.SEC_WEBSOCKET_VERSION) == "13"
        and _KEY.fullmatch(request.headers.get(hdrs.SEC_WEBSOCKET_KEY, "")) is not None
    )


def _tokens(request: HandshakeRequest, header: str) -> Iterator[str]:
    """What the lists of a header name, in lower case; clients may offer more than one protocol."""
    for value in request.headers.getall(header, ()):
        yield from (token.strip().lower() for token in value.split(","))


def describe(request: HandshakeRequest, accepted: Accepted, ip: str) -> Origin:
    """Where a socket comes from."""
    # most clients of a replica are of a few kinds
    user_agent = sys.intern(_text(request.headers.get(hdrs.USER_AGENT, "")[:MAX_USER_AGENT]))
    version = accepted.encoding.version
    transport = accepted.encoding.carrier.name
    return Origin(transport, version, ip, user_agent, accepted.device, accepted.traceparent)


def _params(request: HandshakeRequest, *, verified: bool) -> Json:
    """The client's parameters for the backend.

    Without a token that was verified, which could end up in a log of the backend's; one that could not be,
    because no key is configured, is for the backend to look at.
    """
    hidden = {"vsn", "vsn[]", *(("token",) if verified else ())}
    params = {
        _text(name): _text(value) for name, value in request.query.items() if name not in hidden
    }
    return encode_json(params)


def _text(text: str) -> str:
    """Text that UTF-8 can carry; aiohttp keeps bytes that are none as surrogates."""
    return text.encode(errors="replace").decode()


def _device(request: HandshakeRequest, claims: Claims | None) -> Device:
    if claims is not None and claims.device is not None:
        return claims.device
    values = ((name, _last(request, f"device_{name}")) for name in ("id", "name", "type"))
    said = {name: value for name, value in values if value is not None}
    try:
        return parse_device(said) if said else UNKNOWN
    except ValueError:
        raise Refused(403, "device") from None


def _encoding(request: HandshakeRequest, encodings: Encodings) -> SocketEncoding:
    versions = [value for name, value in request.query.items() if name in ("vsn", "vsn[]")]
    match = _VERSION.fullmatch(versions[-1] if versions else _DEFAULT_VERSION)
    if match is None:
        raise Refused(403, "vsn")
    return encodings[match[1]]


def _last(request: HandshakeRequest, name: str) -> str | None:
    """A parameter of the query; of several the last, as in Phoenix (``Plug.Conn.Query``)."""
    return next(reversed(request.query.getall(name, ())), None)


def _authorization(request: HandshakeRequest) -> str | None:
    header = request.headers.get(hdrs.AUTHORIZATION, "")
    if header[: len(_BEARER)].lower() == _BEARER:
        return header[len(_BEARER) :].strip() or None
    return None


def _subprotocol(request: HandshakeRequest) -> tuple[str | None, str | None]:
    """The subprotocol to select and the token among those offered."""
    token: str | None = None
    others = []
    for offer in _offers(request):
        if offer.startswith(BEARER_SUBPROTOCOL):
            token = _decode_bearer(offer[len(BEARER_SUBPROTOCOL) :])
        else:
            others.append(offer)
    if not others:
        return None, token
    if SUBPROTOCOL not in others:
        raise Refused(403, "subprotocol")
    return SUBPROTOCOL, token


def _offers(request: HandshakeRequest) -> Iterator[str]:
    for header in request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, ()):
        for offer in header.split(","):
            if stripped := offer.strip():
                yield stripped


def _decode_bearer(encoded: str) -> str:
    standard = encoded.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refused(403, "subprotocol_token") from None
