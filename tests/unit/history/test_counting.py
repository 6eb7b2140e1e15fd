"""When offsets begin anew."""

from gateway.history.base import Tip
from gateway.history.counting import Counting


def tip(epoch: str, offset: int) -> Tip:
    """The end of a history."""
    return Tip(epoch, offset, 0.0, 1)


def test_the_first_epoch_is_no_change_and_another_one_is() -> None:
    counting = Counting()
    assert not counting.note(tip("a", 5), counting.mark())
    assert not counting.note(tip("a", 5), counting.mark())
    assert counting.note(tip("b", 3), counting.mark())
    assert (counting.epoch, counting.highest) == ("b", 3)


def test_an_end_that_went_back_is_a_change_though_the_epoch_is_the_same() -> None:
    counting = Counting()
    counting.note(tip("a", 5), counting.mark())
    counting.highest = 7  # a live copy came
    assert not counting.note(tip("a", 7), counting.mark())
    assert counting.note(tip("a", 6), counting.mark())
    assert not counting.note(tip("a", 6), counting.mark())


def test_what_came_after_the_question_says_nothing_about_the_answer() -> None:
    counting = Counting()
    counting.note(tip("a", 5), counting.mark())
    asked = counting.mark()
    counting.highest = 9
    assert not counting.note(tip("a", 5), asked)
    assert counting.highest == 9


def test_two_answers_about_one_change_are_one_change() -> None:
    counting = Counting()
    counting.note(tip("a", 50), counting.mark())
    first, second = counting.mark(), counting.mark()
    assert counting.note(tip("b", 2), first)
    assert not counting.note(tip("b", 3), second)
    assert counting.generation == 2
