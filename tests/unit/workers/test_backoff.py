"""When what has died is started again: at once after a long life, and never in a hot loop."""

import pytest

from gateway.workers.backoff import MOST_SECONDS, STEADY_SECONDS, Backoff


@pytest.mark.parametrize(
    ("lives", "pauses"),
    [
        ([STEADY_SECONDS], [0]),
        ([0, 0, 0, 0], [0, 0.5, 1, 2]),
        ([STEADY_SECONDS, 1, 1], [0, 0.5, 1]),
        ([0, 0, 0, STEADY_SECONDS, 0], [0, 0.5, 1, 0, 0.5]),
        ([STEADY_SECONDS] * 3, [0, 0, 0]),
    ],
)
def test_pauses_grow_with_short_lives(lives: list[float], pauses: list[float]) -> None:
    backoff = Backoff()

    assert [backoff.died(lived) for lived in lives] == pauses


def test_pauses_have_an_end() -> None:
    backoff = Backoff()
    pauses = [backoff.died(0) for _ in range(2000)]

    assert pauses == sorted(pauses)
    assert pauses[-1] == MOST_SECONDS
