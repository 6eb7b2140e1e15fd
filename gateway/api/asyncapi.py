"""Generates the AsyncAPI 3 document of the socket: its frames in both versions, reasons and close codes.

AsyncAPI's view is the application's: the gateway *receives* what clients send.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any, Final, Literal, TypeAlias, get_args

from gateway import __version__
from gateway.api.frames import NULL, OBJECT, RECEIVED, SENT, FrameKind, named
from gateway.device import MAX_CHARACTERS
from gateway.history.position import MAX_LENGTH
from gateway.history.resume import Loss
from gateway.protocol.reasons import CloseCode, Reason
from gateway.protocol.reserved import (
    LIVE,
    MAX_NAME_BYTES,
    MAX_REF_BYTES,
    RESERVED_EVENTS,
    RESERVED_PREFIXES,
    RESERVED_TOPIC,
)

AsyncApiObject: TypeAlias = dict[str, Any]

Version: TypeAlias = Literal["V1", "V2"]

ADDRESS: Final = "/socket/websocket"

_FIELDS: Final = ("join_ref", "ref", "topic", "event", "payload")
_DESCRIPTION: Final = (
    "What clients and the gateway say to each other: Phoenix Channels, versions 1 and 2. `send` is what the "
    "gateway sends, `receive` what it gets. Clients that poll `/socket/longpoll` say and hear the same. Who "
    "only listens at `/socket/sse` (Server-Sent Events) gets topic, event and payload as JSON."
)
_FORMS: Final[dict[Version, str]] = {
    "V1": "`vsn=1.0.0`, or no `vsn`: a frame is an object, without `join_ref` when the gateway sends it.",
    "V2": "`vsn=2.0.0`: a frame is an array of `join_ref`, `ref`, `topic`, `event`, `payload`, or binary.",
}
_SECURITY: Final = {
    "query": {
        "type": "httpApiKey",
        "in": "query",
        "name": "token",
        "description": "A JSON Web Token.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The same.",
    },
}


@cache
def async_document() -> AsyncApiObject:
    """The whole document; shared, so not to be changed."""
    channels: AsyncApiObject = {}
    operations: AsyncApiObject = {}
    messages: AsyncApiObject = {}
    for version, form in _FORMS.items():
        frames = [frame for frame in (*RECEIVED, *SENT) if version == "V2" or not frame.binary]
        messages |= {f"{frame.name}{version}": _message(frame, version) for frame in frames}
        channels[f"socket{version}"] = _channel(version, form, frames)
        for frame in frames:
            operations[f"{frame.name}{version}"] = _operation(frame, version)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Gateway socket",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "public": {
                "host": "{host}",
                "protocol": "ws",
                "description": "The public listener; `wss` where TLS ends before it or at it.",
                "variables": {"host": {"default": "localhost:4000"}},
                "security": [
                    {"$ref": f"#/components/securitySchemes/{name}"} for name in _SECURITY
                ],
            }
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "schemas": _schemas(),
            "securitySchemes": _SECURITY,
        },
    }


def _channel(version: Version, form: str, frames: Iterable[FrameKind]) -> AsyncApiObject:
    device = {name: f"device_{name}" for name in ("id", "name", "type")}
    query = {"token": {"type": "string", "description": "A JSON Web Token."}} | {
        parameter: {
            "type": "string",
            "maxLength": MAX_CHARACTERS,
            "description": f"The device's {name}.",
        }
        for name, parameter in device.items()
    }
    vsn = {"type": "string", "pattern": rf"^{version[1]}\.0\.[0-9]+(\+.*)?$"}
    properties = {"vsn": vsn | {"description": "The version of the protocol."}, **query}
    required = {"required": ["vsn"]} if version == "V2" else {}
    return {
        "address": ADDRESS,
        "title": f"Phoenix Channels {version}",
        "description": form,
        "messages": {
            frame.name: {"$ref": f"#/components/messages/{frame.name}{version}"} for frame in frames
        },
        "bindings": {
            "ws": {
                "method": "GET",
                "query": {**OBJECT, **required, "properties": properties},
                "bindingVersion": "0.1.0",
            }
        },
        "x-close-codes": named("CloseCode"),
    }


def _operation(frame: FrameKind, version: Version) -> AsyncApiObject:
    channel = f"#/channels/socket{version}"
    described: AsyncApiObject = {
        "action": "receive" if frame in RECEIVED else "send",
        "channel": {"$ref": channel},
        "summary": f"{frame.summary}.",
        "messages": [{"$ref": f"{channel}/messages/{frame.name}"}],
    }
    if frame.replies:
        described["reply"] = {
            "channel": {"$ref": channel},
            "messages": [{"$ref": f"{channel}/messages/{name}"} for name in frame.replies],
        }
    return described


def _message(frame: FrameKind, version: Version) -> AsyncApiObject:
    described: AsyncApiObject = {
        "name": frame.name,
        "title": frame.name,
        "summary": f"{frame.summary}.",
    }
    if frame.binary:
        bytes_of = {"type": "string", "format": "binary", "description": f"{frame.binary}."}
        return described | {"contentType": "application/octet-stream", "payload": bytes_of}
    fields = dict(zip(_FIELDS, (*frame.head, _event(frame), frame.payload), strict=True))
    example = dict(zip(_FIELDS, frame.example, strict=True))
    if version == "V2":
        length = {"minItems": len(fields)} | (
            {} if frame in RECEIVED else {"maxItems": len(fields)}
        )
        payload = {"type": "array", "items": list(fields.values()), **length}
        return described | {"payload": payload, "examples": [{"payload": list(example.values())}]}
    required = [name for name in _FIELDS if name != "join_ref"]
    shown = _FIELDS if frame in RECEIVED else required
    payload = {
        **OBJECT,
        "required": required,
        "properties": {name: fields[name] for name in shown},
    }
    return described | {
        "payload": payload,
        "examples": [{"payload": {name: example[name] for name in shown}}],
    }


def _event(frame: FrameKind) -> AsyncApiObject:
    return {"const": frame.event} if isinstance(frame.event, str) else frame.event


def _schemas() -> AsyncApiObject:
    """What several frames have in common; draft 7 passes over what stands beside a ``$ref``."""
    name = {"type": "string", "maxLength": MAX_NAME_BYTES}
    reserved = {
        "anyOf": [
            {"enum": sorted(RESERVED_EVENTS)},
            {"pattern": f"^({'|'.join(RESERVED_PREFIXES)})"},
        ]
    }
    return {
        "AnyTopic": name | {"description": f"At most {MAX_NAME_BYTES} bytes of UTF-8."},
        "Topic": {
            "description": f"A topic; `{RESERVED_TOPIC}` is the protocol's own.",
            "allOf": [named("AnyTopic"), {"not": {"const": RESERVED_TOPIC}}],
        },
        "Ref": {
            "description": f"The client's own id of a message or a join, as it was sent: any JSON of at most "
            f"{MAX_REF_BYTES} bytes."
        },
        "Event": name
        | {
            "description": f"At most {MAX_NAME_BYTES} bytes of UTF-8, and none of the protocol's own.",
            "not": reserved,
        },
        "ClientEvent": {
            "description": f"An event; `{LIVE}` is for backends.",
            "allOf": [named("Event"), {"not": {"const": LIVE}}],
        },
        "Position": {
            "description": "Where a message stands in the history of its topic; opaque.",
            "type": "string",
            "pattern": "^@",
            "maxLength": MAX_LENGTH,
        },
        "JoinParams": {
            **OBJECT,
            "description": "Whatever the backend understands, and `resume`.",
            "properties": {
                "resume": {
                    "description": "null: what comes from now on. A position: what came after it. "
                    "`last`: the newest messages.",
                    "oneOf": [
                        NULL,
                        named("Position"),
                        {
                            **OBJECT,
                            "required": ["last"],
                            "properties": {"last": {"type": "integer", "minimum": 1}},
                            "additionalProperties": False,
                        },
                    ],
                }
            },
        },
        "JoinResponse": {
            **OBJECT,
            "description": "What the backend answers, and the gateway's own.",
            "properties": {
                "session": {
                    "type": "string",
                    "description": "On the personal topic: the session's id.",
                },
                "recovered": {
                    "type": ["boolean", "null"],
                    "description": "After `resume`: whether all that was missed follows; null where no "
                    "position was given.",
                },
                "reason": {
                    "enum": [None, *get_args(Loss)],
                    "description": "Why it was not recovered.",
                },
                "position": {
                    "description": "Where the client stands before what follows; null where nothing is kept.",
                    "oneOf": [NULL, named("Position")],
                },
            },
        },
        "Presences": {
            **OBJECT,
            "description": "By user: her sessions.",
            "additionalProperties": {
                **OBJECT,
                "required": ["metas"],
                "properties": {
                    "metas": {
                        "type": "array",
                        "items": {
                            **OBJECT,
                            "required": ["phx_ref", "online_at"],
                            "properties": {
                                "phx_ref": {
                                    "type": "string",
                                    "description": "Changes with the meta.",
                                },
                                "phx_ref_prev": {
                                    "type": "string",
                                    "description": "What it was before.",
                                },
                                "online_at": {"type": "integer", "description": "Unix seconds."},
                                "device_type": {
                                    "type": "string",
                                    "description": "Where it is known.",
                                },
                            },
                        },
                    }
                },
            },
        },
        "Reason": {
            "description": "Why a join or a push is refused.",
            "type": "string",
            "oneOf": [{"const": each.value, "description": each.when} for each in Reason],
        },
        "CloseCode": {
            "description": "What a socket is closed with.",
            "type": "integer",
            "oneOf": [{"const": each.value, "description": each.when} for each in CloseCode],
        },
    }
