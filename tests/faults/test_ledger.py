"""The books of a soak show what is wrong."""

import pytest

from tests.faults.ledger import Finding, Ledger

ROOM = "room:1"


@pytest.mark.parametrize(
    ("came", "kinds"),
    [
        ([1, 3, 2], {}),
        ([1, 3], {"missed": [2]}),
        ([], {"missed": [1, 3, 2]}),
        ([1, 3, 3, 2], {"repeated": [3]}),
        ([1, 3, 2, 1], {"repeated": [1], "disordered": [1]}),
        ([1, 2, 3], {"disordered": [3]}),
        ([1, 9, 3, 2], {"strange": [9]}),
    ],
)
def test_what_came_is_compared_with_the_stored_order(
    came: list[int], kinds: dict[str, list[int]]
) -> None:
    ledger = Ledger([[], [ROOM]])
    for number, offset in ((1, 10), (2, 30), (3, 20)):
        ledger.store(ROOM, number, offset, at=0.0)
    for number in came:
        ledger.get(1, ROOM, number)

    assert ledger.findings() == [Finding(1, ROOM, kind, numbers) for kind, numbers in kinds.items()]
    assert ledger.outstanding() == max(0, 3 - len(came))
