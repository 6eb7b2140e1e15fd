"""What is looked at when."""

from gateway.history.visits import Visits


def test_each_item_is_due_in_its_second_and_once() -> None:
    visits: Visits[str] = Visits(100.9)
    visits.add("c", 103.2)
    visits.add("a", 101.5)
    visits.add("b", 101.9)

    assert visits.due(100.9) == []
    assert visits.due(101.0) == ["a", "b"]
    assert visits.due(101.99) == []
    assert visits.due(110.0) == ["c"]


def test_what_comes_too_late_is_due_in_the_second_that_follows() -> None:
    visits: Visits[str] = Visits(100.0)
    assert visits.due(105.0) == []
    visits.add("a", 99.0)

    assert visits.due(105.9) == []
    assert visits.due(106.0) == ["a"]


def test_a_clock_that_was_stalled_catches_up() -> None:
    visits: Visits[int] = Visits(0.0)
    for second in range(100):
        visits.add(second, second)

    assert visits.due(99.0) == list(range(100))
