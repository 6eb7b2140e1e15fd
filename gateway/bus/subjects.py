"""The subjects of the bus: which one carries what."""

import re
from functools import lru_cache
from typing import Final

_PLAIN_TOPIC: Final = re.compile(r"[A-Za-z0-9_-]+(?::[A-Za-z0-9_-]+)*").fullmatch
_PLAIN_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_SUBJECT: Final = re.compile(r"[^\s.*>]+(?:\.[^\s.*>]+)*").fullmatch

_IN_USE: Final = 2048
"""Subjects kept at hand: busy ones are named with every message, those of topics that are gone never."""

_ENCODED: Final = tuple(
    chr(byte) if _PLAIN_TOKEN(chr(byte)) else f"%{byte:02X}" for byte in range(256)
)


class Subjects:
    """The subjects of the gateways that share a prefix.

    Args:
        prefix: First token of every subject: letters, digits, ``_`` and ``-``.

    Attributes:
        replicas: Where replicas speak to all others.
        all_topics: Matches the subjects of all topics.
        all_stored: Matches the subjects of all that is to be stored.
        stream: Name of the stream that stores it.
    """

    def __init__(self, prefix: str) -> None:
        if not _PLAIN_TOKEN(prefix):
            raise ValueError(f"{prefix!r} cannot be the first token of a subject")
        self.replicas = f"{prefix}.replicas"
        self.all_topics = f"{prefix}.topic.>"
        self.all_stored = f"{prefix}.store.>"
        self.stream = prefix.upper()
        self._topic = f"{prefix}.topic."
        self._stored = f"{prefix}.store."
        self._replica = f"{prefix}.replica."

    def topic(self, topic: str) -> str:
        """The subject of a topic's messages: a token for each part between colons.

        No two topics share a subject, and every topic has one, whatever its characters.
        """
        return self._topic + _tokens(topic)

    def is_topic(self, subject: str) -> bool:
        """Whether a subject is a topic's."""
        return subject.startswith(self._topic)

    def stored(self, topic: str) -> str:
        """The subject of messages that are to be stored first; they come back on the topic's."""
        return self._stored + _tokens(topic)

    def replica(self, replica: str) -> str:
        return self._replica + _token(replica)


@lru_cache(_IN_USE)
def check(subject: str) -> None:
    """Refuse what is not the concrete name of a subject.

    A line break would let its author speak to the NATS server in our name, a wildcard listen to all.

    Raises:
        ValueError: The subject has blanks, wildcards or an empty token.
    """
    if not _SUBJECT(subject):
        raise ValueError(f"not a subject: {subject!r}")


@lru_cache(_IN_USE)
def _tokens(topic: str) -> str:
    if _PLAIN_TOPIC(topic):
        return topic.replace(":", ".")
    return ".".join(map(_token, topic.split(":")))


def _token(text: str) -> str:
    """Percent-encode UTF-8 byte by byte; a token must not be empty, and a lone % is nothing else."""
    # a lone surrogate is no UTF-8 but still a different topic
    return "".join([_ENCODED[byte] for byte in text.encode("utf-8", "surrogatepass")]) or "%"
