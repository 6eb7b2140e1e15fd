"""One open event stream: joins its topics for a client that only listens, and tells it what comes of it."""

import asyncio
import random
import socket
from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec
import structlog

from gateway.channels.connection import ENDS, Connection
from gateway.channels.connections import Connections
from gateway.channels.encoding import Carrier, Encodings, SocketEncoding
from gateway.channels.services import Services
from gateway.history.position import encode
from gateway.log import teardown
from gateway.pacer import Pacer
from gateway.protocol.messages import (
    CLOSE_EVENT,
    ERROR_EVENT,
    JOIN,
    NULL,
    REPLY_EVENT,
    Json,
    Message,
    Outgoing,
    encode_json,
    overlay,
)
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.sse import POSITION_EVENT, EventStreamSerializer, notice
from gateway.sessions.client import Origin
from gateway.transport.handshake import Accepted
from gateway.transport.listener import Descriptors
from gateway.transport.sse.wire import LAST_CHUNK, SeveralTopicsWire, chunk
from gateway.transport.wire import SocketWire

NAME: Final = "sse"
"""What the transport is called in metrics and sessions."""

ENDED_ID: Final = "ended"
"""The id with which a client that may not come back comes back, to be told so by a 204."""

HEARTBEAT_SECONDS: Final = 25.0
"""How often a comment is sent; proxies end connections on which nothing comes for a minute."""

JOIN_AGAIN_SECONDS: Final = (1.0, 5.0)
"""How long after a channel ended by a fault, or was refused for now, it is joined again."""

REFUSED_FOR_NOW: Final = frozenset(
    {
        Reason.RATE_LIMITED,
        Reason.BUS_UNAVAILABLE,
        Reason.UPSTREAM_UNAVAILABLE,
        Reason.UPSTREAM_TIMEOUT,
        Reason.JOIN_CRASHED,
    }
)
"""A client with a library would join again; this one has none."""

UNREADABLE: Final = "invalid"
"""Reason of a gap where the client's ``Last-Event-ID`` is none of this stream."""

_HEARTBEAT: Final = b":\n\n"
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)

_log = structlog.get_logger(__name__)


def _farewell(code: int, reason: str) -> bytes:
    """The last event."""
    if code == CloseCode.SERVICE_RESTART:
        return notice("drain", b'{"code":%d}' % code)
    place = b"id: %b\n" % ENDED_ID.encode() if code == CloseCode.SESSION_ENDED else b""
    return place + notice("closed", encode_json({"code": int(code), "reason": reason}))


def _encodings(*, presence: bool, several: bool) -> Encodings:
    def alone(code: int, reason: str) -> bytes:
        return chunk(_farewell(code, reason))

    carrier = (
        Carrier(NAME, bytes, None, _farewell) if several else Carrier(NAME, chunk, None, alone)
    )
    serializer = EventStreamSerializer(presence=presence, several=several)
    encoding = SocketEncoding(serializer, NAME, carrier)
    return {"1": encoding, "2": encoding}  # there is no version of Phoenix's protocol in it


EVENT_STREAM_ENCODINGS: Final = {
    (presence, several): _encodings(presence=presence, several=several)
    for presence in (False, True)
    for several in (False, True)
}
"""By whether presence is told, and whether there are several topics."""


class EventStream(Connection, asyncio.Protocol):
    """A connection after its request, on which nothing is read any more.

    To the rest of the gateway it is a socket whose client joins some topics and then is silent; what the
    protocol would answer such a client becomes events.

    Args:
        wire: What carries all its bytes.
        resumes: What each topic is joined with.
        lost: Whether the client has to be told that it missed something.
        ends: Lets streams end, some in each turn of the event loop.
    """

    __slots__ = (
        "_again",
        "_connections",
        "_descriptors",
        "_ends",
        "_lost",
        "_resumes",
        "_socket_wire",
    )

    def __init__(
        self,
        services: Services,
        connections: Connections,
        wire: SocketWire,
        accepted: Accepted,
        origin: Origin,
        *,
        id: str,  # noqa: A002 -- as in Connection
        resumes: Mapping[str, Json],
        lost: bool,
        ends: Pacer,
        descriptors: Descriptors,
    ) -> None:
        idle_seconds = services.limits.idle_timeout_seconds
        super().__init__(
            services,
            SeveralTopicsWire(wire) if len(resumes) > 1 else wire,
            accepted.encoding,
            accepted.claims,
            origin,
            id=id,
            state=accepted.state,
            idle_seconds=min(HEARTBEAT_SECONDS, idle_seconds / 3),
        )
        self._connections = connections
        self._socket_wire = wire
        self._resumes = dict(resumes)
        self._lost = set(resumes) if lost else frozenset[str]()
        self._again: frozenset[str] = frozenset()  # topics refused for now, of which it was told
        self._ends = ends
        self._descriptors = descriptors
        _give_up_after(wire.transport, idle_seconds)

    def join(self, topic: str) -> None:
        """Join a topic, from where the client stands."""
        if self.close_code is not None or self.wire.is_closing():
            return
        params = b'{"resume":%b}' % self._resumes[topic]
        try:
            self.perform(self.core.receive(Message(NULL, NULL, topic, JOIN, params)))
        except Exception:  # noqa: BLE001 -- top of what is done for this socket: logged, and it ends
            _log.exception("socket crashed", throttle="")
            self.close(CloseCode.INTERNAL_ERROR)

    def tell(self, message: Outgoing) -> None:
        if message.event == REPLY_EVENT:
            self._answered(message)
        elif message.event == ERROR_EVENT:
            self._join_later(message.topic)
        elif message.event == CLOSE_EVENT:
            self._say(notice("closed", b'{"topic":%b}' % message.topic))
        else:
            self.send(self.encoding.outgoing(message))

    def due(self, now: float) -> float | None:
        if self.close_code is None and now >= self._idle_at():
            self.heard_at = now  # else TCP would have said
            self._say(_HEARTBEAT)
        return super().due(now)

    def resume_writing(self) -> None:
        self._socket_wire.resumed()

    def connection_lost(self, _: Exception | None) -> None:
        self._socket_wire.lost()
        self._descriptors.open -= 1
        self._ends.call(self._end)

    def _answered(self, reply: Outgoing) -> None:
        """A join was answered."""
        topic = _text(reply.topic)
        answer = _reply(reply.payload)
        if answer.status == "error":
            self._refused(topic, answer.response)
            return
        response = _response(answer.response)
        position = self._resumes[topic] = encode_json(response.position)
        place = self.encoding.serializer.broadcast(topic, POSITION_EVENT, b"", position)
        reason = UNREADABLE if topic in self._lost else response.reason
        if topic in self._lost or response.recovered is False:
            data = encode_json({"topic": topic, "reason": reason})
            place = place[:-1] + notice("gap", data)
            self._lost -= {topic}
        self._again -= {topic}
        self._say(place)

    def _refused(self, topic: str, response: Json) -> None:
        if _reason(response) in REFUSED_FOR_NOW:
            self._join_later(encode_json(topic))
            if topic in self._again:
                return  # it was told, and nothing has changed
            self._again |= {topic}
        of = b'{"topic":%b}' % encode_json(topic)
        try:
            data = overlay(response, of)
        except ValueError:  # a backend's own words
            data = of
        self._say(notice("refused", data))

    def _join_later(self, topic: Json) -> None:
        """Join again what ended by a fault, from where the client was sent to."""
        name = _text(topic)
        departed = self.channels.departed
        if departed is not None and departed[0] == name:
            self._resumes[name] = encode_json(encode(departed[1]))
        seconds = random.uniform(*JOIN_AGAIN_SECONDS)  # noqa: S311 -- spreads load, guards nothing
        asyncio.get_running_loop().call_later(seconds, self.join, name)

    def _say(self, event: bytes) -> None:
        self.send(self.encoding.carrier.text(event))

    def _say_farewell(self, code: CloseCode, reason: str) -> None:
        teardown(ENDS, partial(super()._say_farewell, code, reason), self._finish)

    def _finish(self) -> None:
        """End the answer, and the connection when all of it is sent."""
        if not self._socket_wire.is_closing():
            self._socket_wire.write(LAST_CHUNK)
            self._socket_wire.close()

    def _end(self) -> None:
        teardown(ENDS, self.release, partial(self._connections.remove, self, NAME))
        code = self.close_code or CloseCode.GOING_AWAY
        self._services.metrics.disconnects.labels(str(code)).inc()


class _Reply(msgspec.Struct):
    status: str
    response: msgspec.Raw


class _Response(msgspec.Struct):
    position: str
    recovered: bool | None
    reason: str | None


class _Refusal(msgspec.Struct):
    reason: Reason


_text: Final = msgspec.json.Decoder(str).decode
_reply: Final = msgspec.json.Decoder(_Reply).decode
_response: Final = msgspec.json.Decoder(_Response).decode
_refusal: Final = msgspec.json.Decoder(_Refusal).decode


def _reason(response: Json) -> Reason | None:
    """A reason of the gateway's; None for a backend's words."""
    try:
        return _refusal(response).reason
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def _give_up_after(transport: asyncio.Transport, seconds: float) -> None:
    """Have the kernel end a connection whose other side has taken nothing for so long.

    It does so by itself after some 15 minutes, for which a client that is gone would count as listening.
    """
    connection = transport.get_extra_info("socket")
    if _USER_TIMEOUT is not None and connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(seconds * 1000))
