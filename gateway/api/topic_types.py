"""The bodies of answers about topics and who is on them."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.api.user_types import Covered
from gateway.auth.rules import JoinMode, PresenceMode, PushMode, SlowConsumer
from gateway.retention import Retention

_NEXT = Meta(description="The `cursor` of the next page; null when this is the last.")


class TopicEntry(msgspec.Struct):
    """One topic that has members."""

    topic: Annotated[str, Meta(description="Its name.")]
    channels: Annotated[int, Meta(description="Sockets on it, of all replicas.")]


class TopicList(Covered, kw_only=True):
    """A page of the topics that have members, in order of their names' code points."""

    items: Annotated[list[TopicEntry], Meta(description="The topics.")]
    next: Annotated[str | None, _NEXT]


class TopicFigures(msgspec.Struct):
    """How many are on a topic."""

    channels: Annotated[int, Meta(description="Sockets, the anonymous ones among them.")]
    sessions: Annotated[int, Meta(description="Those of users.")]
    users: Annotated[
        int,
        Meta(
            description="Different users. Of all replicas it is an estimate, off by about 1 %, "
            "when one of them has more than 8,191 on the topic."
        ),
    ]


class RuleReport(msgspec.Struct):
    """The channel rule that a topic hits; its keys are those of `[[channels]]`."""

    pattern: Annotated[str, Meta(description="What it matches.", examples=["room:*"])]
    join: Annotated[JoinMode, Meta(description="Who may join.")]
    push: Annotated[PushMode, Meta(description="What a client's push does.")]
    echo: Annotated[bool, Meta(description="Whether the pusher gets its own broadcast.")]
    presence: Annotated[PresenceMode, Meta(description="Whether members are told who is there.")]
    history: Annotated[
        Retention | None, Meta(description="What is kept of messages; null for nothing.")
    ]
    slow_consumer: Annotated[
        SlowConsumer, Meta(description="What becomes of who does not read in time.")
    ]


class HistoryEnds(msgspec.Struct):
    """Where the history of a topic begins and ends."""

    first: Annotated[
        str | None,
        Meta(
            description="Position of the oldest message that is stored; null when none is. It may be "
            "beyond what the rule counts: a page of the history begins where that does."
        ),
    ]
    last: Annotated[str | None, Meta(description="Position of the newest; null when none is.")]


class TopicReport(Covered, kw_only=True):
    """What is known of a topic."""

    topic: Annotated[str, Meta(description="The topic, as it was asked for.")]
    here: Annotated[TopicFigures, Meta(description="On the replica that answers.")]
    all: Annotated[TopicFigures, Meta(description="On all replicas that answered.")]
    history: Annotated[
        HistoryEnds | None,
        Meta(
            description="Null when the rule keeps none, and when the store did not answer in time: "
            "then `complete` is false."
        ),
    ]
    rule: Annotated[
        RuleReport | None, Meta(description="Null when none matches: nobody can join the topic.")
    ]


class PresentReport(msgspec.Struct):
    """One user who is present."""

    user: Annotated[str, Meta(description="The user, `sub` of her token.")]
    sessions: Annotated[int, Meta(description="How many she has on the topic.")]
    metas: Annotated[
        list[
            Annotated[
                msgspec.Raw,
                Meta(
                    extra_json_schema={
                        "type": "object",
                        "properties": {
                            "phx_ref": {"type": "string"},
                            "online_at": {"type": "integer"},
                        },
                    }
                ),
            ]
        ],
        Meta(
            description="One for each session, as clients see them; of a user with more than 100 "
            "on a replica only so many of that one."
        ),
    ]


class PresentList(Covered, kw_only=True):
    """A page of the users who are present on a topic, in order of their names' code points."""

    items: Annotated[list[PresentReport], Meta(description="The users.")]
    next: Annotated[str | None, _NEXT]
