"""When offsets begin anew."""

from gateway.history.base import Tip
from gateway.history.follower import EpochWatch


def tip(epoch: str, offset: int) -> Tip:
    """The end of a history."""
    return Tip(epoch, offset, 0.0, 1)


def test_the_first_epoch_is_no_change_and_another_one_is() -> None:
    epochs = EpochWatch()
    assert not epochs.note(tip("a", 5), epochs.known())
    assert not epochs.note(tip("a", 5), epochs.known())
    assert epochs.note(tip("b", 3), epochs.known())
    assert (epochs.epoch, epochs.highest) == ("b", 3)


def test_an_end_that_went_back_is_a_change_though_the_epoch_is_the_same() -> None:
    epochs = EpochWatch()
    epochs.note(tip("a", 5), epochs.known())
    epochs.highest = 7  # a live copy came
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
