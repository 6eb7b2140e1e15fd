"""Keys of the tracker: a topic, and whether sessions or presence are tracked on it."""

from typing import Final

SESSIONS: Final = "s:"
"""Begins the key of a user's sessions; the rest is her personal topic."""

PRESENCE: Final = "p:"
"""Begins the key of who is present on a topic; the rest is the topic."""

_KIND_CHARACTERS: Final = 2


def topic_of(key: str) -> str:
    """The topic on whose subject a key's messages travel."""
    return key[_KIND_CHARACTERS:]
