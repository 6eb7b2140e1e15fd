"""What the request for an event stream asks for."""

from collections.abc import Mapping
from typing import Final

import msgspec
from multidict import MultiMapping

from gateway.history.position import decode
from gateway.protocol.messages import NULL, Json
from gateway.protocol.reserved import name_fits
from gateway.protocol.sse import digest, places_of
from gateway.transport.handshake import Refused

LAST_EVENT_ID: Final = "Last-Event-ID"

_NEWEST: Final = "last:"
_MAX_DIGITS: Final = 9


class Wanted(msgspec.Struct, frozen=True):
    """A request, taken apart.

    Attributes:
        resumes: What the join of each topic has as ``resume``, by topic.
        lost: Whether the client stood somewhere, and nobody can say where.
        presence: Whether it wants to be told of presence.
    """

    resumes: Mapping[str, Json]
    lost: bool
    presence: bool


def wanted(query: MultiMapping[str], headers: MultiMapping[str], most_topics: int) -> Wanted:
    """Take a request apart.

    Raises:
        Refused: The query is none. A ``Last-Event-ID`` never is the reason: a browser sends again what it
            was given, and would be refused for ever.
    """
    topics = list(dict.fromkeys(query.getall("topic", ())))
    if not 0 < len(topics) <= most_topics:
        raise _bad(f"name 1 to {most_topics} topics: ?topic=room:42&topic=news:1")
    if not all(_is_text(topic) and name_fits(topic) for topic in topics):
        raise _bad("a topic has at most 255 bytes of UTF-8")
    presence = query.get("presence", "false")
    if presence not in ("true", "false"):
        raise _bad("presence is true or false")
    resume, lost = query.get("resume", ""), False
    asked: Mapping[str, Json] = {}
    otherwise = NULL
    if resume.startswith(_NEWEST):
        count = resume[len(_NEWEST) :]
        if not (count.isascii() and count.isdigit() and len(count) <= _MAX_DIGITS and int(count)):
            raise _bad("resume=last: has a number behind it: resume=last:20")
        otherwise = b'{"last":%d}' % int(count)
    elif resume:
        found = _positions(resume, topics)
        if found is None:
            raise _bad("resume is last:20, or an id of an event of this stream")
        asked = found
    if last_id := headers.get(LAST_EVENT_ID):
        found = _positions(last_id, topics)
        asked, lost = found or {}, found is None
        otherwise = NULL if lost else otherwise
    resumes = {topic: asked.get(topic, otherwise) for topic in topics}
    return Wanted(resumes, lost, presence == "true")


def _positions(last_id: str, topics: list[str]) -> Mapping[str, Json] | None:
    """What to resume after, by topic; None if an id is none, or not of this stream."""
    if last_id.startswith("@"):
        return {topics[0]: _json(last_id)} if len(topics) == 1 and _is_position(last_id) else None
    entries = places_of(last_id)
    found = {topic: entries.get(digest(topic).decode(), "") for topic in topics}
    there = {topic: position for topic, position in found.items() if position}
    if not there or not all(_is_position(position) for position in there.values()):
        return None
    return {topic: _json(position) for topic, position in there.items()}


def _is_position(text: str) -> bool:
    try:
        decode(text)
    except ValueError:
        return False
    return True


def _json(position: str) -> Json:
    return b'"%b"' % position.encode()


def _is_text(topic: str) -> bool:
    """Whether it was UTF-8; aiohttp keeps bytes that are none as surrogates."""
    try:
        topic.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bad(advice: str) -> Refused:
    return Refused(400, "bad_query", advice)
