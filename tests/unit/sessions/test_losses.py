"""Lost replicas: who knows of them, whose it is to tell, and which of them come back."""

import pytest

from gateway.sessions.losses import REMEMBERED, Losses
from gateway.tracker.effects import Lost
from gateway.tracker.peers import Peers


@pytest.fixture
def peers() -> Peers:
    """Knows "b", in its run 2."""
    peers = Peers(10.0)
    peers.hear("b", 2, 0.0)
    return peers


@pytest.mark.parametrize(
    ("replica", "incarnation", "known"),
    [
        ("a", 1, True),  # noticed
        ("a", 2, False),  # another run of it
        ("b", 2, True),  # alive: if it is dead, that will be noticed
        ("b", 1, False),
        ("c", 1, False),
    ],
)
def test_what_a_replica_knows(peers: Peers, replica: str, incarnation: int, known: bool) -> None:
    losses = Losses(peers)
    losses.noticed(Lost("a", 1, 5))

    assert losses.knows(replica, incarnation) is known


@pytest.mark.parametrize(
    ("others", "tells"), [([], True), ([False, False], True), ([False, True], False)]
)
def test_the_first_that_knows_tells(peers: Peers, others: list[bool], tells: bool) -> None:
    losses = Losses(peers)
    lost = Lost("a", 1, 5)
    losses.noticed(lost)
    assert losses.untold == [lost]

    assert losses.settled(lost, others) is tells
    assert losses.untold == []
    assert losses.knows("a", 1), "others may ask later"


@pytest.mark.parametrize(
    ("incarnation", "told", "returned"), [(1, True, ["a"]), (2, True, []), (1, False, [])]
)
def test_who_returns_is_told_once_that_it_was_called_lost(
    peers: Peers, incarnation: int, told: bool, returned: list[str]
) -> None:
    losses = Losses(peers)
    lost = Lost("a", 1, 5)
    losses.noticed(lost)
    losses.settled(lost, [not told])
    assert losses.returned() == []
    peers.hear("a", incarnation, 1.0)

    assert losses.returned() == returned
    assert losses.returned() == returned, "until it is reached"
    for replica in returned:
        losses.welcomed(replica)
    assert losses.returned() == []


def test_losses_of_long_ago_are_forgotten(peers: Peers) -> None:
    losses = Losses(peers)
    for n in range(REMEMBERED + 1):
        lost = Lost(f"r{n}", 1, 0)
        losses.noticed(lost)
        losses.settled(lost, [])
    for n in range(REMEMBERED + 1):
        peers.hear(f"r{n}", 1, 0.0)

    assert len(losses.returned()) == REMEMBERED
    assert "r0" not in losses.returned()
    peers.forget("r0", 1)
    assert not losses.knows("r0", 1)
