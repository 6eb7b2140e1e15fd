"""What trackers say to each other, read by one that does not trust the bus."""

from math import inf, nan

import msgspec
import pytest

from gateway.tracker.entry import Entry
from gateway.tracker.messages import (
    Beat,
    Delta,
    Digest,
    Hello,
    State,
    TrackerMessage,
    decode,
    encode,
)


def entry(meta: bytes = b"{}", online_at: float = 1.0, connected_at: float = 1.0) -> Entry:
    return Entry("s1", "42", "r1", connected_at, online_at, meta=meta)


def messages(shown: Entry) -> list[TrackerMessage]:
    """Everything that carries entries."""
    good = entry()
    return [
        Hello("a", 1, "p:room:1", 1, (good, shown)),
        State("a", 1, "p:room:1", 1, (good, shown)),
        State("a", 1, "p:room:1", 1, (good,), (shown,)),
        Delta("a", 1, "p:room:1", 1, 2, (good, shown)),
    ]


@pytest.mark.parametrize("meta", [b"{}", b'{"a":1}', b'{ "a" : "\xc3\xa9" }'])
def test_an_entry_that_can_be_shown_is_taken(meta: bytes) -> None:
    for message in messages(entry(meta)):
        assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "shown",
    [
        *map(entry, (b"", b"[]", b"{", b"null", b"{ }", b'{"a":"\xff"}', b"{}{}", b'{"a":1}]')),
        entry(online_at=nan),
        entry(online_at=inf),
        entry(connected_at=nan),
    ],
)
def test_one_that_would_spoil_what_all_members_are_shown_is_not(shown: Entry) -> None:
    """Metas go out as they came, within one frame for all; times are compared and rounded."""
    for message in messages(shown):
        with pytest.raises(ValueError, match=r"a (meta|time) is"):
            decode(encode(message))


def test_what_an_earlier_release_says_is_understood() -> None:
    assert decode(encode((4, "a", 1, "p:room:1", 7, 2))) == Digest("a", 1, "p:room:1", 7, 2)
    assert decode(encode((6, "a", 1, 3, 4, 5.0))) == Beat("a", 1, 3, 4, 5.0)


def test_what_a_later_release_adds_is_passed_over() -> None:
    message = (*decode_fields(Beat("a", 1, 3)), "new")

    assert decode(encode(message)) == Beat("a", 1, 3)


def decode_fields(message: TrackerMessage) -> list[object]:
    """The array a message travels as."""
    fields: list[object] = msgspec.msgpack.decode(encode(message))
    return fields
