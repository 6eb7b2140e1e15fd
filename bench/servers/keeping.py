"""A replica that keeps history, what is published to it, and what its clients must be sent."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

from bench.builds import WORKING_TREE, Build
from bench.servers.base import EVENT, PAYLOAD_BYTES, post
from bench.servers.gateway import API_KEY, Gateway
from bench.wire import LoadError, Wire

BATCH: Final = 1000
"""Messages of one request: as many as are allowed."""

KEPT_MESSAGES: Final = 100
KEPT_SECONDS: Final = 3600

_RULE: Final = """
[[channels]]
pattern = "{pattern}"
history = {{ messages = {messages}, seconds = {seconds} }}
"""
STORED: Final = re.compile(rb'"position":"(@[^"]+)"')
"""The position of a stored message, in an answer."""


class KeepingGateway(Gateway):
    """A replica with history on ``kept:*``, and none on ``room:*``.

    Args:
        personal: Whether it keeps history of personal topics, too.
    """

    def __init__(self, bus: str, *, personal: bool = False, build: Build = WORKING_TREE) -> None:
        patterns = ("kept:*", "user:{sub}") if personal else ("kept:*",)
        rules = "".join(
            _RULE.format(pattern=pattern, messages=KEPT_MESSAGES, seconds=KEPT_SECONDS)
            for pattern in patterns
        )
        super().__init__(bus, sections=rules, build=build)


def payload(number: int) -> bytes:
    """A JSON object of 128 bytes that has a number in it."""
    start = b'{"n":%d,"data":"' % number
    return start + b"x" * (PAYLOAD_BYTES - len(start) - 2) + b'"}'


def single(topic: str, number: int) -> bytes:
    """The request that publishes one message."""
    return _post("/v1/publish", _message(topic, number))


def batch(messages: Iterable[tuple[str, int]]) -> bytes:
    """The request that publishes several: topics and numbers."""
    body = b",".join(_message(topic, number) for topic, number in messages)
    return _post("/v1/publish/batch", b'{"messages":[%b]}' % body)


def stored(wire: Wire, messages: Sequence[tuple[str, int]]) -> list[str]:
    """Publish topics and numbers, which must all be stored; returns their positions."""
    positions: list[str] = []
    for start in range(0, len(messages), BATCH):
        some = messages[start : start + BATCH]
        wire.ask(batch(some))
        found = STORED.findall(wire.answered())
        if len(found) != len(some):
            raise LoadError(f"{len(found)} of {len(some)} messages were stored")
        positions += [each.decode() for each in found]
    return positions


def join(topic: str, resume: str | None = None, *, resumes: bool = True) -> bytes:
    """The message that joins a topic, and resumes there unless told otherwise."""
    params = json.dumps({"resume": resume} if resumes else {}, separators=(",", ":"))
    return b'["1","1","%b","phx_join",%b]' % (topic.encode(), params.encode())


def tail(topic: str, number: int) -> bytes:
    """How the text of a message ends for whoever gets it; before that there is only its position."""
    return b',"%b","%b",%b]' % (topic.encode(), EVENT.encode(), payload(number))


def _message(topic: str, number: int) -> bytes:
    return b'{"topic":"%b","event":"%b","payload":%b}' % (
        topic.encode(),
        EVENT.encode(),
        payload(number),
    )


def _post(path: str, body: bytes) -> bytes:
    return post(path, body, b"Authorization: Bearer %b\r\n" % API_KEY.encode())
