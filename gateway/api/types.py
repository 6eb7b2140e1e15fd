"""The bodies of requests and answers: these types validate them and generate the OpenAPI document.

Unknown fields are refused, so that nobody takes them for heeded.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from gateway.api.problem import FieldError, Problem
from gateway.protocol.reserved import MAX_NAME_BYTES, name_fits

MAX_TARGETS: Final = 1000
"""Topics of one publish."""

MAX_BATCH_MESSAGES: Final = 1000
"""Messages of one batch."""

MAX_ID_LENGTH: Final = 128
"""Longest message id in characters, all of them printable ASCII."""

MAX_FILTERED: Final = 100
"""Sessions, devices or types one message can name."""

_BRACE: Final = ord("{")
_TARGETS: Final = ("topic", "topics", "user", "users")
_ONE_TARGET: Final = {"oneOf": [{"required": [target]} for target in _TARGETS]}

_Topic = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_NAME_BYTES,
        description=f"A topic clients join, at most {MAX_NAME_BYTES} bytes of UTF-8.",
        examples=["room:42"],
    ),
]
_Event = Annotated[
    str,
    Meta(
        max_length=MAX_NAME_BYTES,
        description=f"The event clients listen for, at most {MAX_NAME_BYTES} bytes of UTF-8; "
        "not one of the protocol's own, such as `phx_close` or `presence_state`.",
        examples=["new_message"],
    ),
]
_Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID_LENGTH,
        description="Id of the message, printable ASCII; made up by the gateway when absent. "
        "The header `Idempotency-Key` is the same.",
        examples=["order-1234-paid"],
    ),
]


_User = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_NAME_BYTES,
        description="A user, `sub` of her token.",
        examples=["42"],
    ),
]
_Filter = Annotated[
    list[Annotated[str, Meta(max_length=MAX_ID_LENGTH)]], Meta(max_length=MAX_FILTERED)
]


class PublishRequest(msgspec.Struct, forbid_unknown_fields=True):
    """One message for the members of one topic or of each of several, or for all devices of users."""

    event: _Event
    payload: Annotated[
        msgspec.Raw,
        Meta(
            description="Any JSON object; clients get it byte for byte as it stands here. At most "
            "`limits.max_message_bytes` bytes.",
            extra_json_schema={"type": "object", "examples": [{"text": "hi"}]},
        ),
    ]
    topic: _Topic | UnsetType = UNSET
    topics: (
        Annotated[
            list[_Topic],
            Meta(
                min_length=1,
                max_length=MAX_TARGETS,
                description="Several topics in place of `topic`. One that is named twice gets the "
                "message once.",
            ),
        ]
        | UnsetType
    ) = UNSET
    user: _User | UnsetType = UNSET
    users: (
        Annotated[
            list[_User],
            Meta(
                min_length=1,
                max_length=MAX_TARGETS,
                description="Several users in place of `user`; all devices of each get the message "
                "on the user's personal topic.",
            ),
        ]
        | UnsetType
    ) = UNSET
    exclude_sessions: (
        Annotated[_Filter, Meta(description="Ids of sessions that do not get it.")] | UnsetType
    ) = UNSET
    exclude_devices: (
        Annotated[
            _Filter,
            Meta(description="Ids of devices that do not get it, whatever session they have."),
        ]
        | UnsetType
    ) = UNSET
    device_types: (
        Annotated[
            _Filter,
            Meta(description="Only devices of these types get it.", examples=[["phone"]]),
        ]
        | UnsetType
    ) = UNSET
    id: _Id | UnsetType = UNSET

    @property
    def size(self) -> int:
        """How many targets it names, and 1 if none."""
        return len(self.topics or ()) + len(self.users or ()) or 1

    @property
    def to_users(self) -> bool:
        """Whether it names users, and not topics."""
        return self.topic is UNSET and self.topics is UNSET

    def faults(self) -> list[FieldError]:
        """What the types cannot say; empty when the request is valid."""
        faults = []
        given = [name for name in _TARGETS if getattr(self, name) is not UNSET]
        if not given:
            faults.append(FieldError("topic", f"one of {', '.join(_TARGETS)} is needed"))
        faults += [
            FieldError(name, f"only one of {', '.join(_TARGETS)} can be given")
            for name in given[1:]
        ]
        if self.topic is not UNSET and not name_fits(self.topic):
            faults.append(FieldError("topic", _TOO_LONG))
        faults += [
            FieldError(f"topics[{index}]", _TOO_LONG)
            for index, topic in enumerate(self.topics or ())
            if not name_fits(topic)
        ]
        if not name_fits(self.event):
            faults.append(FieldError("event", _TOO_LONG))
        # A Raw begins with its first character that is no white space.
        if memoryview(self.payload)[0] != _BRACE:
            faults.append(FieldError("payload", "must be an object"))
        if self.id is not UNSET:
            faults += id_faults("id", self.id)
        return faults


_TOO_LONG: Final = f"must have at most {MAX_NAME_BYTES} bytes of UTF-8"


def id_faults(field: str, value: str) -> list[FieldError]:
    """What is wrong with a message id that came in ``field``."""
    if 1 <= len(value) <= MAX_ID_LENGTH and value.isascii() and value.isprintable():
        return []
    return [FieldError(field, f"must be 1 to {MAX_ID_LENGTH} printable ASCII characters")]


PUBLISH_BODY: Final[Any] = Annotated[PublishRequest, Meta(extra_json_schema=_ONE_TARGET)]
"""The request with the rule that no field can state: exactly one kind of target."""


class BatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Messages that are sent one after the other, in order."""

    messages: Annotated[
        # Raw, so that one that is wrong does not keep the others from being sent.
        list[
            Annotated[
                msgspec.Raw,
                Meta(
                    extra_json_schema={
                        "$ref": "#/components/schemas/PublishRequest",
                        **_ONE_TARGET,
                    }
                ),
            ]
        ],
        Meta(max_length=MAX_BATCH_MESSAGES, description="Each as in `POST /v1/publish`."),
    ]


class TargetResult(msgspec.Struct):
    """What became of the message on one topic: a position, or a problem."""

    topic: Annotated[str, Meta(description="The topic as it was asked for.")]
    position: (
        Annotated[
            str | None,
            Meta(description="Where the message stands; null on a topic without history."),
        ]
        | UnsetType
    ) = UNSET
    duplicate: (
        Annotated[
            bool,
            Meta(
                description="True when a message with this id had been stored before; `position` is its."
            ),
        ]
        | UnsetType
    ) = UNSET
    listening: (
        Annotated[
            bool,
            Meta(
                description="Where it was published to a user. False: certainly none of her devices got it, "
                "nobody listens on any replica. True: one on the replica that was asked does, whatever "
                "the message's filters say. Absent: not known; she is on another replica, most likely, "
                "or was a few seconds ago."
            ),
        ]
        | UnsetType
    ) = UNSET
    problem: Annotated[Problem, Meta(description="Why this topic did not get it.")] | UnsetType = (
        UNSET
    )


class PublishResponse(msgspec.Struct):
    """At least one topic took the message."""

    id: Annotated[str, Meta(description="Id of the message.", examples=["order-1234-paid"])]
    results: Annotated[
        list[TargetResult], Meta(description="One per topic, in the order they were asked for.")
    ]


class BatchItem(msgspec.Struct):
    """What became of one message: `id` and `results` as after a single publish, or a problem."""

    id: Annotated[str, Meta(description="Id of the message.")] | UnsetType = UNSET
    results: Annotated[list[TargetResult], Meta(description="One per topic.")] | UnsetType = UNSET
    problem: Annotated[Problem, Meta(description="Why no topic got the message.")] | UnsetType = (
        UNSET
    )


class BatchResponse(msgspec.Struct):
    """The batch was read; each message has its own outcome."""

    results: Annotated[list[BatchItem], Meta(description="One per message, in order.")]


class Liveness(msgspec.Struct):
    """Whether the process works."""

    live: Annotated[bool, Meta(description="False when it should be restarted.")]


class ReadinessReport(msgspec.Struct):
    """Whether new clients should be sent here."""

    ready: Annotated[bool, Meta(description="True when there is no reason against it.")]
    reasons: Annotated[
        list[str], Meta(description="Why not; empty when ready.", examples=[["bus_down"]])
    ]
