"""What trackers say to each other, read by one that does not trust the bus."""

from math import inf, nan

import pytest

from gateway.tracker.entry import Entry
from gateway.tracker.messages import Delta, Hello, State, TrackerMessage, decode, encode


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
