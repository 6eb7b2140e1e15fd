"""The ring: what it lets go, and what it can be asked."""

import pytest

from gateway.history.base import Stored
from gateway.history.ring import OVERHEAD_BYTES, Ring
from gateway.retention import Retention


def message(offset: int, time: float | None = None, size: int = 10) -> Stored:
    """A message that was stored at its offset's second, unless another is given."""
    return Stored(offset, float(offset) if time is None else time, b"x" * size)


def ring(
    *offsets: int, start: int = 10, retention: Retention | None = None, max_bytes: int = 1 << 20
) -> Ring:
    """A ring that begins above 10 and was added messages."""
    ring = Ring(retention or Retention(3, 100), max_bytes)
    ring.restart(start, float(start))
    for offset in offsets:
        ring.add(message(offset))
    return ring


def offsets(messages: list[Stored] | None) -> list[int] | None:
    """Offsets of messages."""
    return None if messages is None else [message.offset for message in messages]


@pytest.mark.parametrize(
    ("after", "known", "expected"),
    [
        (9, 0, None),
        (9, 9, None),
        (9, 10, [12, 15]),
        (10, 0, [12, 15]),
        (12, 0, [15]),
        (13, 0, [15]),
        (15, 0, []),
        (99, 0, []),
    ],
)
def test_what_lies_above_an_offset(after: int, known: int, expected: list[int] | None) -> None:
    assert offsets(ring(12, 15).since(after, known)) == expected


def test_an_empty_ring_knows_from_where_on_it_is_complete() -> None:
    assert ring().since(9) is None
    assert ring().since(10) == []


def test_it_holds_one_message_more_than_may_be_missed() -> None:
    full = ring(11, 12, 13, 14, 15, 16)

    assert offsets(full.since(12)) == [13, 14, 15, 16]
    assert full.since(11) is None
    assert (full.start, full.start_time) == (12, 12.0)


def test_old_messages_go() -> None:
    aged = ring(11, 12)
    aged.trim(111.5)

    assert offsets(aged.since(11)) == [12]
    assert aged.since(10) is None

    aged.add(message(300))

    assert offsets(aged.since(12)) == [300]
    assert len(aged) == 1


def test_big_messages_push_others_out_and_may_be_too_big_themselves() -> None:
    small = ring(11, 12, max_bytes=2 * (OVERHEAD_BYTES + 10))
    small.add(message(13))
    assert offsets(small.since(11)) == [12, 13]

    small.add(message(14, size=1000))

    assert len(small) == 0
    assert small.since(13) is None
    assert small.since(14) == []

    small.add(message(15))

    assert offsets(small.since(14)) == [15]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (12, [13, 14, 15, 16]),  # all that were missed, and they are too many
        (11, [13, 14, 15, 16]),  # more than these, and already these are too many
        (13, [14, 15, 16]),
        (0, [13, 14, 15, 16]),
    ],
)
def test_a_full_ring_tells_who_missed_too_much(after: int, expected: list[int]) -> None:
    assert offsets(ring(11, 12, 13, 14, 15, 16).missed(after)) == expected


def test_a_ring_that_is_not_full_does_not() -> None:
    assert ring(11, 12, 13).missed(9) is None
    assert offsets(ring(11, 12, 13).missed(10)) == [11, 12, 13]


@pytest.mark.parametrize(
    ("count", "now", "expected"),
    [
        (1, 20.0, [12]),
        (2, 20.0, [11, 12]),
        (3, 20.0, None),  # there may be one from before the ring began
        (3, 110.0, [11, 12]),  # which would be too old now
        (2, 111.5, [12]),
        (3, 500.0, []),
    ],
)
def test_the_newest(count: int, now: float, expected: list[int] | None) -> None:
    assert offsets(ring(11, 12).newest(count, now)) == expected


def test_a_ring_that_was_cut_short_knows_how_far_its_newest_go_back() -> None:
    full = ring(11, 12, 13, 14, 15)

    assert offsets(full.newest(3, 20.0)) == [13, 14, 15]
    assert offsets(full.newest(3, 114.0)) == [14, 15]


def test_what_was_read_for_one_serves_those_who_follow() -> None:
    extended = ring(12, 14)

    extended.extend(6, [message(7), message(9), message(12), message(14), message(20)], known=14)

    assert offsets(extended.since(6)) == [7, 9, 12, 14]
    assert extended.since(5) is None
    assert offsets(extended.newest(3, 20.0)) == [9, 12, 14]
    assert extended.start_time == 7.0


def test_a_read_of_nothing_extends_it_as_well() -> None:
    extended = ring(12)

    extended.extend(6, [message(12)], known=12)

    assert offsets(extended.since(6)) == [12]
    assert extended.newest(2, 20.0) is None  # nothing was learnt about times


@pytest.mark.parametrize(
    ("after", "known"),
    [
        (6, 9),  # something may lie between the read and the ring
        (10, 14),
        (12, 14),
    ],
)
def test_a_read_that_does_not_reach_the_ring_or_not_beyond_it_is_passed_over(
    after: int, known: int
) -> None:
    extended = ring(12, 14)

    extended.extend(after, [message(9)], known=known)

    assert extended.start == 10
    assert offsets(extended.since(10)) == [12, 14]


def test_what_is_extended_stays_within_the_bounds() -> None:
    extended = ring(12, 14, max_bytes=3 * (OVERHEAD_BYTES + 10))

    extended.extend(5, [message(6), message(7), message(8)], known=14)

    assert offsets(extended.since(7)) == [8, 12, 14]
    assert extended.since(6) is None

    extended.add(message(16))

    assert offsets(extended.since(8)) == [12, 14, 16]


def test_a_restarted_ring_is_empty() -> None:
    restarted = ring(11, 12, max_bytes=2 * (OVERHEAD_BYTES + 10))
    restarted.restart(40, 40.0)

    assert restarted.newest_message is None
    assert restarted.since(39) is None
    assert restarted.since(40) == []

    for offset in (41, 42):
        restarted.add(message(offset))

    assert offsets(restarted.since(40)) == [41, 42]
