"""The kinds of frames that clients and the gateway send each other, in either version of the protocol.

Each is told once, by its fields; :mod:`gateway.api.asyncapi` makes the forms of both versions from that.
"""

import json
from typing import Any, Final, TypeAlias

import msgspec

from gateway.protocol.messages import (
    CLOSE_EVENT,
    ERROR_EVENT,
    HEARTBEAT,
    JOIN,
    LEAVE,
    REPLY_EVENT,
)
from gateway.protocol.reasons import Reason
from gateway.protocol.reserved import ACCESS_TOKEN, PRESENCE_UPDATE, RESERVED_TOPIC
from gateway.protocol.v2 import BROADCAST, PUSH
from gateway.relay import POSITION
from gateway.tracker.presence import COUNT_EVENT, DIFF_EVENT, STATE_EVENT

JsonSchema: TypeAlias = dict[str, Any]
"""Of draft 7, which AsyncAPI's schemas are a superset of."""

OBJECT: Final[JsonSchema] = {"type": "object"}
NULL: Final[JsonSchema] = {"type": "null"}


class FrameKind(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of frame.

    Attributes:
        name: In camel case.
        summary: What it says.
        event: Its name, or the schema of its name.
        head: Schemas of its join_ref, ref and topic.
        payload: A schema.
        example: Its fields, as version 2 has them.
        replies: Names of what the gateway answers it with, what it is taken with first.
        binary: In place of JSON: how its bytes are laid out. Version 1 has no such frame.
    """

    name: str
    summary: str
    event: str | JsonSchema
    example: tuple[Any, ...]
    head: tuple[JsonSchema, JsonSchema, JsonSchema]
    payload: JsonSchema = msgspec.field(default_factory=lambda: OBJECT)
    replies: tuple[str, ...] = ()
    binary: str = ""


def named(name: str) -> JsonSchema:
    """A reference to one of the schemas that several frames have in common."""
    return {"$ref": f"#/components/schemas/{name}"}


_REPLY, _CLOSE, _ERROR = map(json.loads, (REPLY_EVENT, CLOSE_EVENT, ERROR_EVENT))
_OF_CLIENT: Final = (named("Ref"), named("Ref"), named("Topic"))
_ANYWHERE: Final = (named("Ref"), named("Ref"), named("AnyTopic"))


def _reply(name: str, summary: str, response: JsonSchema, example: JsonSchema) -> FrameKind:
    status = "error" if name.startswith("refused") else "ok"
    payload = {
        **OBJECT,
        "required": ["status", "response"],
        "properties": {"status": {"const": status}, "response": response},
        "additionalProperties": False,
    }
    return FrameKind(
        name=name,
        summary=summary,
        event=_REPLY,
        payload=payload,
        example=("1", "1", "room:42", _REPLY, {"status": status, "response": example}),
        head=_ANYWHERE,
    )


def _presence(event: str, summary: str, payload: JsonSchema, example: JsonSchema) -> FrameKind:
    first, _, rest = event.partition("_")
    return FrameKind(
        name=first + rest.title(),
        summary=summary,
        event=event,
        payload=payload,
        example=("1", None, "room:42", event, example),
        head=(named("Ref"), NULL, named("Topic")),
    )


_REFUSED: Final = ("refused", "refusedByBackend")
_ONE_META: Final = {"metas": [{"phx_ref": "F7kq0w", "online_at": 1767323045}]}
_BINARY_HEAD: Final = "One byte {kind}, then {lengths} in a byte each, then these, then the payload"

RECEIVED: Final = (
    FrameKind(
        name="join",
        summary="Joins a topic; with `resume` messages come with positions, and what was missed comes first",
        event=JOIN,
        payload=named("JoinParams"),
        example=("1", "1", "room:42", JOIN, {"resume": None}),
        replies=("joined", *_REFUSED),
        head=_OF_CLIENT,
    ),
    FrameKind(
        name="leave",
        summary="Leaves a topic",
        event=LEAVE,
        example=("1", "2", "room:42", LEAVE, {}),
        replies=("taken", "refused"),
        head=_OF_CLIENT,
    ),
    FrameKind(
        name="push",
        summary="Says something to everybody on a topic, or to the backend, as the channel rule has it",
        event=named("ClientEvent"),
        example=("1", "3", "room:42", "message", {"text": "hi"}),
        replies=("taken", *_REFUSED),
        head=_OF_CLIENT,
    ),
    FrameKind(
        name="binaryPush",
        summary="Says bytes to everybody on a topic",
        event=named("ClientEvent"),
        example=(),
        binary=_BINARY_HEAD.format(kind=PUSH, lengths="the lengths of join_ref, ref, topic, event"),
        replies=("taken", *_REFUSED),
        head=_OF_CLIENT,
    ),
    FrameKind(
        name="heartbeat",
        summary="Keeps the socket open",
        event=HEARTBEAT,
        example=(None, "4", RESERVED_TOPIC, HEARTBEAT, {}),
        replies=("taken",),
        head=(named("Ref"), named("Ref"), {"const": RESERVED_TOPIC}),
    ),
    FrameKind(
        name="accessToken",
        summary=f"Replaces the socket's credentials; on `{RESERVED_TOPIC}` or any topic it has joined",
        event=ACCESS_TOKEN,
        payload={
            **OBJECT,
            "required": ["access_token"],
            "properties": {"access_token": {"type": "string", "description": "A token."}},
        },
        example=(
            None,
            "5",
            RESERVED_TOPIC,
            ACCESS_TOKEN,
            {"access_token": "eyJhbGciOiJIUzI1NiJ9…"},
        ),
        replies=("taken", "refused"),
        head=_ANYWHERE,
    ),
    FrameKind(
        name="presenceUpdate",
        summary="Changes what others on the topic see of this client",
        event=PRESENCE_UPDATE,
        example=("1", "6", "room:42", PRESENCE_UPDATE, {"status": "away"}),
        replies=("taken", "refused"),
        head=_OF_CLIENT,
    ),
)
"""What clients send."""

SENT: Final = (
    _reply("joined", "The answer to a join", named("JoinResponse"), {}),
    _reply(
        "taken",
        "The answer to all else: it was taken. `response` is empty where no backend answers",
        OBJECT,
        {},
    ),
    _reply(
        "refused",
        "The gateway refuses",
        {
            **OBJECT,
            "required": ["reason"],
            "properties": {"reason": named("Reason")},
            "additionalProperties": False,
        },
        {"reason": Reason.UNAUTHORIZED.value},
    ),
    _reply(
        "refusedByBackend",
        "The backend refuses, in its own words",
        OBJECT,
        {"reason": "not a member"},
    ),
    FrameKind(
        name="broadcast",
        summary="What was published; `ref` is its position where the join asked for `resume`",
        event=named("Event"),
        example=(None, None, "room:42", "message", {"text": "hi"}),
        head=(NULL, {"oneOf": [NULL, named("Position")]}, named("Topic")),
    ),
    FrameKind(
        name="binaryBroadcast",
        summary="Bytes that a client pushed",
        event=named("Event"),
        example=(),
        binary=_BINARY_HEAD.format(kind=BROADCAST, lengths="the lengths of topic and event"),
        head=(NULL, NULL, named("Topic")),
    ),
    FrameKind(
        name="position",
        summary="Tells a client that resumes where it stands while nothing comes",
        event=POSITION,
        example=(None, "@18c5.2b.19b3", "room:42", POSITION, {}),
        head=(NULL, named("Position"), named("Topic")),
    ),
    _presence(
        STATE_EVENT,
        "Who is present, after a join; goes on in diffs where it is long",
        named("Presences"),
        {"ada": _ONE_META},
    ),
    _presence(
        DIFF_EVENT,
        "Who came and went",
        {
            **OBJECT,
            "required": ["joins", "leaves"],
            "properties": {"joins": named("Presences"), "leaves": named("Presences")},
            "additionalProperties": False,
        },
        {"joins": {"ada": _ONE_META}, "leaves": {}},
    ),
    _presence(
        COUNT_EVENT,
        'How many are present, where the rule has `presence = "count"`',
        {
            **OBJECT,
            "required": ["users", "sessions"],
            "properties": {
                name: {"type": "integer", "minimum": 0} for name in ("users", "sessions")
            },
            "additionalProperties": False,
        },
        {"users": 2, "sessions": 3},
    ),
    FrameKind(
        name="close",
        summary="The channel is closed, and the client shall not come back by itself",
        event=_CLOSE,
        example=("1", "1", "room:42", _CLOSE, {}),
        head=_OF_CLIENT,
    ),
    FrameKind(
        name="error",
        summary="The channel is gone; the client joins again",
        event=_ERROR,
        example=("1", "1", "room:42", _ERROR, {}),
        head=_OF_CLIENT,
    ),
)
"""What the gateway sends."""
