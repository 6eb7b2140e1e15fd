"""Parses the backend's answers to callbacks; one of another shape counts as no answer.

Payloads stay the bytes they were. Unknown keys are ignored, as the backend may be newer; ``null`` is the
same as an absent key, but for ``state``, where it is a value like any other.

Each function raises ``UpstreamRefused`` for a status of 400 to 499, and ``UpstreamUnavailable`` for what is
no answer: another status that is no success, or a body of another shape.
"""

from typing import Annotated, Final, TypeVar

import msgspec

from gateway.device import Device
from gateway.errors import UpstreamRefused, UpstreamUnavailable
from gateway.protocol.reserved import MAX_NAME_BYTES, name_fits

MAX_BROADCASTS: Final = 100
"""Messages one push may lead to."""

MAX_REFUSAL_BYTES: Final = 4096
"""Longest body of a refusal that reaches the client."""

_EMPTY: Final = b"{}"
_ABSENT: Final = msgspec.Raw(b"")


class ConnectAnswer(msgspec.Struct, frozen=True, gc=False):
    """Who a client is; None leaves it as its token says.

    Attributes:
        state: JSON to keep with the session.
    """

    user: str | None = None
    device: Device | None = None
    state: bytes | None = None


class JoinAnswer(msgspec.Struct, frozen=True, gc=False):
    """A join that is let in.

    Attributes:
        response: JSON object for the reply.
        presence: JSON object for the client's presence meta.
        state: JSON to keep with the session; None to keep the one there is.
    """

    response: bytes = _EMPTY
    presence: bytes = _EMPTY
    state: bytes | None = None


class TopicMessage(msgspec.Struct, frozen=True, gc=False):
    """A message for the members of the topic.

    Attributes:
        event: At most 255 bytes of UTF-8; may be a reserved one.
        payload: JSON object.
        id: What names it within its topic, so that a history takes it once; None for nothing.
    """

    event: str
    payload: bytes
    id: str | None = None


class PushAnswer(msgspec.Struct, frozen=True, gc=False):
    """A push that was taken.

    Attributes:
        response: JSON object for the reply.
        state: JSON to keep with the session; None to keep the one there is.
        broadcast: In the order in which to publish them.
    """

    response: bytes = _EMPTY
    state: bytes | None = None
    broadcast: tuple[TopicMessage, ...] = ()


class _Connect(msgspec.Struct, gc=False):
    user: str | None = None
    device: Device | None = None
    state: msgspec.Raw = _ABSENT


class _Join(msgspec.Struct, gc=False):
    response: msgspec.Raw = _ABSENT
    presence: msgspec.Raw = _ABSENT
    state: msgspec.Raw = _ABSENT


class _Message(msgspec.Struct, gc=False):
    event: str
    payload: msgspec.Raw
    id: Annotated[str, msgspec.Meta(pattern="^[ -~]{1,128}$")] | None = None


class _Push(msgspec.Struct, gc=False):
    response: msgspec.Raw = _ABSENT
    state: msgspec.Raw = _ABSENT
    broadcast: list[_Message] | None = None


class _Object(msgspec.Struct, gc=False):
    """Any JSON object."""


_connect: Final = msgspec.json.Decoder(_Connect)
_join: Final = msgspec.json.Decoder(_Join)
_push: Final = msgspec.json.Decoder(_Push)
_object: Final = msgspec.json.Decoder(_Object)

T = TypeVar("T")


def connect_answer(
    status: int, body: bytes, *, max_state_bytes: int, max_user_bytes: int
) -> ConnectAnswer:
    """The answer to ``gateway.connect``; a user may have ``max_user_bytes`` in UTF-8."""
    answer = _read(_connect, status, body)
    if answer.user is not None and not 0 < len(answer.user.encode()) <= max_user_bytes:
        raise _unusable(f"user is not 1 to {max_user_bytes} bytes")
    return ConnectAnswer(answer.user, answer.device, _state(answer.state, max_state_bytes))


def join_answer(status: int, body: bytes, *, max_state_bytes: int) -> JoinAnswer:
    """The answer to ``gateway.join``."""
    answer = _read(_join, status, body)
    return JoinAnswer(
        _optional_object("response", answer.response),
        _optional_object("presence", answer.presence),
        _state(answer.state, max_state_bytes),
    )


def push_answer(status: int, body: bytes, *, max_state_bytes: int) -> PushAnswer:
    """The answer to ``gateway.push``."""
    answer = _read(_push, status, body)
    broadcast = answer.broadcast or ()
    if len(broadcast) > MAX_BROADCASTS:
        raise _unusable(f"more than {MAX_BROADCASTS} messages to broadcast")
    return PushAnswer(
        _optional_object("response", answer.response),
        _state(answer.state, max_state_bytes),
        tuple(map(_outgoing, broadcast)),
    )


def event_answer(status: int, _: bytes) -> None:
    """The answer to what the backend is only told: its status is all that counts."""
    _need_success(status, b"")


def _read(decoder: msgspec.json.Decoder[T], status: int, body: bytes) -> T:
    _need_success(status, body)
    try:
        return _decode(decoder, body.strip() or _EMPTY)
    except ValueError as problem:
        raise _unusable(str(problem)) from None


def _need_success(status: int, body: bytes) -> None:
    if 400 <= status < 500:
        raise UpstreamRefused(status, _refusal(body))
    if not 200 <= status < 300:
        raise UpstreamUnavailable(str(status))


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode all of it.

    Raises:
        ValueError: Says where, and quotes nothing.
    """
    try:
        # msgspec passes over the inside of strings it does not decode; what is no UTF-8 there would make
        # browsers close the connection (RFC 6455, 8.1).
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except UnicodeDecodeError as problem:
        raise ValueError(f"no UTF-8 at byte {problem.start}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refusal(body: bytes) -> bytes:
    body = body.strip()
    if len(body) > MAX_REFUSAL_BYTES:
        return _EMPTY
    try:
        _decode(_object, body)
    except ValueError:  # a page for people, say
        return _EMPTY
    return body


def _optional_object(key: str, raw: msgspec.Raw) -> bytes:
    value = bytes(raw)
    if value in (b"", b"null"):
        return _EMPTY
    return _need_object(key, value)


def _need_object(key: str, value: bytes) -> bytes:
    if not value.startswith(b"{"):
        raise _unusable(f"{key} is no object")
    return value


def _state(raw: msgspec.Raw, most: int) -> bytes | None:
    # a copy: a slice would keep the whole answer in memory as long as the session
    state = bytes(raw)
    if len(state) > most:
        raise _unusable(f"state is above {most} bytes")
    return state or None


def _outgoing(message: _Message) -> TopicMessage:
    if not name_fits(message.event):
        raise _unusable(f"an event to broadcast has more than {MAX_NAME_BYTES} bytes")
    payload = _need_object("a payload to broadcast", bytes(message.payload))
    return TopicMessage(message.event, payload, message.id)


def _unusable(detail: str) -> UpstreamUnavailable:
    return UpstreamUnavailable("answer", detail)
