"""``[[channels]]``: the keys of a channel rule."""

from typing import Annotated, Literal

from gateway.config import syntax
from gateway.config.fields import HttpUrl, Section, checked, doc, example
from gateway.retention import Retention


class Channel(Section, frozen=True, kw_only=True):
    """What clients may do on the topics that match a pattern.

    There may be several; the first that matches a topic holds, and a topic without one cannot be joined.
    """

    pattern: Annotated[
        Annotated[str, checked(syntax.pattern)],
        doc(
            'A topic, a "prefix*", or with placeholders as in "user:{sub}",'
            " which must equal that claim of the token."
        ),
        example("room:*"),
    ]
    join: Annotated[
        Literal["anyone", "authenticated", "token", "upstream"],
        doc(
            "Who may join: with token those whose token's claim topics names the topic,"
            " with upstream those your backend lets in."
        ),
    ] = "authenticated"
    push: Annotated[
        Literal["deny", "broadcast", "upstream"],
        doc("What becomes of a message a client pushes: with upstream your backend answers it."),
    ] = "deny"
    echo: Annotated[bool, doc("Whether the pusher gets its own broadcast.")] = True
    presence: Annotated[
        bool | Literal["count"],
        doc("Whether members see who else is on the topic; with count they see only how many."),
    ] = False
    history: Annotated[
        Retention | None,
        doc(
            "What is kept of each topic, for clients that come back or come new: the last messages,"
            " none older than so many seconds; absent for nothing."
        ),
        example({"messages": 100, "seconds": 300}),
    ] = None
    slow_consumer: Annotated[
        Literal["disconnect", "drop"],
        doc(
            "What happens to a client too slow for a message: it is closed, or it misses the message."
        ),
    ] = "disconnect"
    upstream_url: Annotated[
        HttpUrl,
        doc("The backend of these topics, if it is another than upstream.url."),
    ] = ""
