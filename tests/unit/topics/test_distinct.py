"""Users of several replicas are counted once each: exactly, or nearly where they are many."""

import pytest

from gateway.topics.distinct import KEPT, count, sketch


def users(start: int, end: int) -> list[str]:
    return [f"user-{number}" for number in range(start, end)]


@pytest.mark.parametrize(
    ("replicas", "expected"),
    [
        ([], 0),
        ([[], []], 0),
        ([users(0, 5), users(3, 8), users(0, 1)], 8),
        # exact however many they are together
        ([users(number, number + KEPT - 1) for number in range(0, 5 * KEPT, KEPT)], 5 * (KEPT - 1)),
    ],
)
async def test_a_count_is_exact_while_no_replica_has_many(
    replicas: list[list[str]], expected: int
) -> None:
    assert count([await sketch(each) for each in replicas]) == expected


async def test_many_are_estimated() -> None:
    sketches = [await sketch(users(0, 60_000)), await sketch(users(30_000, 90_000))]

    assert {len(each) for each in sketches} == {KEPT}
    assert count(sketches) == pytest.approx(90_000, rel=0.04)
    assert count([*sketches, await sketch(users(0, 100))]) == count(sketches)
