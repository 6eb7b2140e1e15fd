"""When offsets begin anew."""

import pytest

from gateway.bus.stream_position import StreamPosition
from gateway.history.base import Narrowed, Tip
from gateway.history.epoch import (
    AHEAD_OFFSETS,
    AHEAD_SECONDS,
    REMEMBERED_TIPS,
    EpochWatch,
)


def tip(epoch: str, offset: int) -> Tip:
    """The end of a history."""
    return Tip(epoch, offset, 0.0, 1, 0.0)


def test_the_first_epoch_is_no_change_and_another_one_is() -> None:
    epochs = EpochWatch()
    assert not epochs.note(tip("a", 5), epochs.known())
    assert not epochs.note(tip("a", 5), epochs.known())
    assert epochs.note(tip("b", 3), epochs.known())
    assert (epochs.epoch, epochs.highest) == ("b", 3)


def test_an_end_that_went_back_is_a_change_though_the_epoch_is_the_same() -> None:
    epochs = EpochWatch()
    epochs.note(tip("a", 5), epochs.known())
    assert not epochs.note(tip("a", 7), epochs.known())
    assert epochs.note(tip("a", 6), epochs.known())
    assert not epochs.note(tip("a", 6), epochs.known())


def test_what_came_after_the_question_says_nothing_about_the_answer() -> None:
    epochs = EpochWatch()
    epochs.note(tip("a", 5), epochs.known())
    asked = epochs.known()
    epochs.highest = 9
    assert not epochs.note(tip("a", 5), asked)
    assert epochs.highest == 9


def test_two_answers_about_one_change_are_one_change() -> None:
    epochs = EpochWatch()
    epochs.note(tip("a", 50), epochs.known())
    first, second = epochs.known(), epochs.known()
    assert epochs.note(tip("b", 2), first)
    assert not epochs.note(tip("b", 3), second)
    assert epochs.generation == 2


def seen(*tips: tuple[int, float]) -> EpochWatch:
    """What is known after these ends of the history."""
    epochs = EpochWatch()
    for offset, time in tips:
        epochs.note(Tip("a", offset, time, 1, 0.0), epochs.known())
    return epochs


@pytest.mark.parametrize(
    ("first", "kept_since", "lacks"),
    [
        (11, 900.0, False),  # what follows the position is there
        (5, 900.0, False),
        (12, 900.0, True),  # one after it is gone, and those that are there are younger than it
        (12, 500.5, True),
        (12, 500.0, True),  # within the millisecond to which a position is exact
        (12, 499.9, False),  # what is gone was older than the position
        (31, 900.0, True),  # a purge of all: the last was stored after the position
        (31, 499.9, False),  # all became too old
    ],
)
def test_what_is_still_there_tells_whether_something_may_be_lacking(
    first: int, kept_since: float, lacks: bool
) -> None:
    now = Tip("a", 30, 1000.0, first, kept_since)
    assert EpochWatch().may_lack(now, 10, 500.0) is lacks


@pytest.mark.parametrize(
    ("tips", "lacks"),
    [
        ([], True),
        ([(19, 400.0)], False),  # what is gone was all there before the position's time
        ([(30, 400.0)], False),
        ([(19, 500.0)], False),
        ([(19, 501.0)], True),
        ([(18, 400.0)], True),  # one more came later
        ([(18, 400.0), (19, 600.0)], True),
        ([(10, 300.0), (19, 400.0), (30, 900.0)], False),
    ],
)
def test_what_was_seen_before_tells_too(tips: list[tuple[int, float]], lacks: bool) -> None:
    """After a quiet hour the first message is younger than any position, and nothing is lacking."""
    now = Tip("a", 30, 1000.0, 20, 900.0)
    assert seen(*tips).may_lack(now, 10, 500.0) is lacks


@pytest.mark.parametrize(
    ("time", "found", "lacks"),
    [(500.0, 4, False), (500.0, 5, True), (500.0, 6, True), (600.0, 6, False)],
)
def test_as_many_as_were_kept_when_fewer_were_kept_may_not_be_all(
    time: float, found: int, lacks: bool
) -> None:
    now = Tip("a", 30, 1000.0, 1, 100.0, Narrowed(5, 600.0))
    assert EpochWatch().may_lack(now, 10, time, found) is lacks


def test_what_was_seen_of_another_epoch_tells_nothing() -> None:
    epochs = seen((30, 400.0))
    epochs.note(Tip("b", 30, 450.0, 1, 0.0), epochs.known())
    assert not epochs.stored_by(30, 449.0)
    assert epochs.stored_by(30, 450.0)


def test_of_ends_that_were_seen_only_so_many_are_remembered_the_last_ones_exactly() -> None:
    last = 20 * REMEMBERED_TIPS
    epochs = seen(*((n, float(n)) for n in range(1, last + 1)))
    assert REMEMBERED_TIPS / 2 <= len(epochs.tips) <= REMEMBERED_TIPS
    assert epochs.tips == sorted(epochs.tips)
    assert epochs.stored_by(last, last)
    assert not epochs.stored_by(last, last - 1)
    assert epochs.stored_by(last * 3 // 4, last * 4 // 5), "roughly, of longer ago"


@pytest.mark.parametrize(
    ("offset", "previous", "time", "problem"),
    [
        (101, 100, 1000.0, None),
        (101, 0, 1000.0, None),
        (100 + AHEAD_OFFSETS, 50, 1000.0 + AHEAD_SECONDS, None),
        (3, 2, 0.0, None),  # late, or of a store that was replaced: the topic's log can tell
        (101 + AHEAD_OFFSETS, 50, 1000.0, "sequence beyond the stream's end"),
        (2**64, 50, 1000.0, "sequence beyond the stream's end"),
        (101, 101, 1000.0, "no stream sequence"),
        (0, 0, 1000.0, "no stream sequence"),
        (101, 2**64, 1000.0, "no stream sequence"),
        (101, 100, 1001.0 + AHEAD_SECONDS, "time in the future"),
    ],
)
def test_a_live_copy_that_cannot_be_the_stores(
    offset: int, previous: int, time: float, problem: str | None
) -> None:
    position = StreamPosition(offset, previous, time, "p.store.a")
    assert seen((100, 900.0)).implausible(position, 1000.0) == problem


def test_before_the_end_is_known_nearly_all_is_plausible() -> None:
    epochs = EpochWatch()
    assert epochs.implausible(StreamPosition(2**40, 1, 5.0, "p.store.a"), 0.0) is None
    assert epochs.implausible(StreamPosition(1, 1, 5.0, "p.store.a"), 0.0) is not None
