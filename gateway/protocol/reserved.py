"""Names that belong to the protocol, which nobody may publish an event under; how long names and refs are."""

from typing import Final

RESERVED_TOPIC: Final = "phoenix"
"""The topic of heartbeats; nobody can join it or publish to it."""

MAX_NAME_BYTES: Final = 255
"""
Longest topic or event in UTF-8 bytes.

Binary frames carry these lengths in one byte (``Phoenix.Socket.V2.JSONSerializer``); a name that
only fits text frames could never be broadcast in binary.
"""

MAX_REF_BYTES: Final = 255
"""Longest ref or join_ref as JSON; a channel keeps two. Clients count, or take a UUID."""

PRESENCE_UPDATE: Final = "presence_update"
"""A reserved event a client may push: it changes what others see of it."""

ACCESS_TOKEN: Final = "access_token"  # noqa: S105 -- the name of an event
"""The other one: it refreshes the socket's credentials and goes no further."""

LIVE: Final = "live"
"""The event of ``live.js``, which backends alone may publish: pages take its HTML as their own."""

PRESENCE_EVENTS: Final = frozenset({"presence_count", "presence_diff", "presence_state"})
"""What members are told of each other."""

RESERVED_PREFIXES: Final = ("phx_", "chan_reply_")
RESERVED_EVENTS: Final = PRESENCE_EVENTS | {ACCESS_TOKEN, "position", PRESENCE_UPDATE}


def is_reserved_event(event: str) -> bool:
    """Whether ``event`` may be sent by the gateway alone.

    phoenix.js acts on these whoever sent them: a forged ``phx_close`` ends another client's
    channel, ``chan_reply_1`` answers its push, ``presence_state`` empties its list of members.
    """
    return event in RESERVED_EVENTS or event.startswith(RESERVED_PREFIXES)


def name_fits(name: str) -> bool:
    """Whether a topic or event keeps :data:`MAX_NAME_BYTES`."""
    return len(name) <= MAX_NAME_BYTES and (
        len(name) * 4 <= MAX_NAME_BYTES or len(name.encode()) <= MAX_NAME_BYTES
    )
