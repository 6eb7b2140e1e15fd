"""Server-Sent Events: messages as an event stream (WHATWG HTML, section 9.2.6), and what its ids say.

An event's ``id`` is where its reader stands then, so what a browser sends as ``Last-Event-ID`` resumes. A
stream of one topic has that topic's position. One of several has an entry for each, a digest of the topic and
its position: an event has the entry of its own topic, the same for all readers, and :data:`OTHERS` in the
place of the entries that are each reader's own.
"""

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import msgspec

from gateway.protocol.messages import NULL, Json, Message, Outgoing, Undecodable, encode_json
from gateway.protocol.reserved import PRESENCE_EVENTS

POSITION_EVENT: Final = "position"
"""Says nothing but the position."""

OTHERS: Final = b"\0"
"""A byte that no JSON and no id has (:func:`complete` replaces it)."""

_DIGEST_CHARACTERS: Final = 8
_UNPRINTABLE: Final = str.maketrans("\0\r\n", "   ")
_ID: Final = b"id: "


class EventStreamSerializer:
    """Serializer of event streams; their clients say nothing.

    Args:
        presence: Whether events of presence are among what is sent.
        several: Whether its streams have several topics.
    """

    def __init__(self, *, presence: bool, several: bool) -> None:
        self._presence = presence
        self._several = several

    def decode(self, _: str) -> Message:
        raise Undecodable(None)

    def decode_binary(self, _: bytes) -> Message:
        raise Undecodable(None)

    def encode(self, message: Outgoing) -> bytes:
        if _text(message.event) in PRESENCE_EVENTS and not self._presence:
            return b""
        return _event(_text(message.event), message.topic, message.event, message.payload)

    def broadcast(self, topic: str, event: str, payload: Json, ref: Json = NULL) -> bytes:
        if event in PRESENCE_EVENTS and not self._presence:
            return b""
        place = b"" if ref == NULL else self._place(topic, ref[1:-1])
        if event == POSITION_EVENT:
            return place + b"\n"
        return place + _event(event, encode_json(topic), encode_json(event), payload)

    def broadcast_binary(self, *_: object) -> bytes | None:
        return None

    def _place(self, topic: str, position: bytes) -> bytes:
        if self._several:
            return b"%b%b%b%b\n" % (_ID, digest(topic), position, OTHERS)
        return b"%b%b\n" % (_ID, position)


def notice(event: str, data: Json) -> bytes:
    """An event of the gateway's own. A publisher's always have ``event`` and ``payload`` in their data."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), _one_line(data))


@lru_cache(maxsize=1024)
def digest(topic: str) -> bytes:
    """What ids call a topic, of the URL-safe alphabet: they would be too long with its name."""
    short = hashlib.blake2s(topic.encode(), digest_size=_DIGEST_CHARACTERS * 6 // 8).digest()
    return base64.urlsafe_b64encode(short)


def complete(data: bytes, places: dict[bytes, bytes]) -> bytes:
    """Put into events of one topic what a reader's ids have beside them.

    Args:
        places: Digest -> position, of all topics of that reader; that of the events' topic is set.
    """
    end = data.rfind(OTHERS)
    if end < 0:
        return data
    start = data.rfind(_ID, 0, end) + len(_ID)
    own, position = data[start : start + _DIGEST_CHARACTERS], data[start + _DIGEST_CHARACTERS : end]
    places[own] = position
    epoch = position[: position.index(b".") + 1]
    others = [
        # nearly always of the same epoch, which is then left away
        b",%b%b" % (key, at[len(epoch) - 1 :] if at.startswith(epoch) else at)
        for key, at in places.items()
        if key != own
    ]
    return data.replace(OTHERS, b"".join(others))


def places_of(text: str) -> Mapping[str, str]:
    """The entries of an id with several, by :func:`digest`; positions are as they were written."""
    entries = text.split(",")
    epoch = entries[0][_DIGEST_CHARACTERS:].partition(".")[0]
    found: dict[str, str] = {}
    for entry in entries:
        key, at = entry[:_DIGEST_CHARACTERS], entry[_DIGEST_CHARACTERS:]
        found[key] = epoch + at if at.startswith(".") else at
    return found


def _event(name: str, topic: Json, event: Json, payload: Json) -> bytes:
    return b'event: %b\ndata: {"topic":%b,"event":%b,"payload":%b}\n\n' % (
        name.translate(_UNPRINTABLE).encode(),
        topic,
        event,
        _one_line(payload),
    )


def _one_line(data: Json) -> Json:
    """JSON has line breaks between its tokens alone, where a blank means the same."""
    return data.replace(b"\n", b" ").replace(b"\r", b" ")


_text: Final = msgspec.json.Decoder(str).decode
