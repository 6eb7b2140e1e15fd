"""The other replicas: who is alive, and when this one may say that somebody is not."""

import pytest

from gateway.tracker.peers import STALL_SECONDS, Heard, Peers

DOWN_AFTER = 10.0
BEAT = 2.0


@pytest.fixture
def peers() -> Peers:
    """Knows "a", heard at 0 in its run 5, and looked last at 0."""
    peers = Peers(DOWN_AFTER)
    peers.hear("a", 5, 0.0)
    assert peers.lost(0.0, BEAT) == []
    return peers


def look(peers: Peers, until: float, since: float = 0.0) -> list[str]:
    """Look twice a second, as a replica does that is well; returns who was lost."""
    lost = []
    for step in range(int((until - since) * 2)):
        lost += [name for name, _ in peers.lost(since + (step + 1) / 2, BEAT)]
    return lost


@pytest.mark.parametrize(
    ("replica", "incarnation", "heard", "run"),
    [
        ("a", 5, Heard.KNOWN, 5),
        ("a", 6, Heard.RESTARTED, 6),
        ("a", 4, Heard.OUTDATED, 5),
        ("b", 1, Heard.NEW, 1),
    ],
)
def test_who_a_message_is_from(
    peers: Peers, replica: str, incarnation: int, heard: Heard, run: int
) -> None:
    assert peers.hear(replica, incarnation, 1.0) is heard
    assert peers[replica].incarnation == run


def test_an_outdated_message_is_no_sign_of_life(peers: Peers) -> None:
    peers.hear("a", 4, 9.0)

    assert look(peers, 10.5) == ["a"]


def test_who_missed_a_beat_is_quiet_until_the_next() -> None:
    peers = Peers(DOWN_AFTER)
    peers.hear("a", 1, 0.0)
    assert peers.quiet == {"a"}
    peers.beaten("a", 0.0)
    assert not peers.quiet
    look(peers, 2.9)
    assert not peers.quiet
    look(peers, 7.5, 7.0)
    assert peers.quiet == {"a"}
    peers.hear("a", 1, 7.5)
    peers.beaten("a", 7.5)
    assert not peers.quiet
    look(peers, 20.0, 7.5)
    assert not peers.quiet, "it is lost"


@pytest.mark.parametrize("why", ["stalled", "cut off", "cut off for a moment"])
def test_who_was_deaf_knows_of_nobody_whether_he_is_there(peers: Peers, why: str) -> None:
    peers.beaten("a", 0.0)
    if why != "stalled":
        peers.bus_changed(connected=False)
    if why != "cut off for a moment":
        peers.lost(STALL_SECONDS + 0.1, BEAT)
    peers.bus_changed(connected=True)
    assert peers.quiet == {"a"}
    peers.beaten("a", 3.0)
    assert not peers.quiet


def test_silence_is_death_once_it_is_too_long(peers: Peers) -> None:
    assert look(peers, DOWN_AFTER) == []
    assert list(peers) == ["a"]

    assert look(peers, DOWN_AFTER + 1, since=DOWN_AFTER) == ["a"]
    assert list(peers) == []
    assert len(peers) == 0


def test_who_is_heard_in_time_lives(peers: Peers) -> None:
    look(peers, 8.0)
    peers.hear("a", 5, 8.0)

    assert look(peers, 18.0, since=8.0) == []
    assert look(peers, 18.5, since=18.0) == ["a"]


def test_a_lost_peer_is_handed_over_as_it_was(peers: Peers) -> None:
    peers["a"].sessions = 7
    look(peers, DOWN_AFTER)

    [(name, peer)] = peers.lost(DOWN_AFTER + 0.5, BEAT)

    assert (name, peer.sessions) == ("a", 7)


def test_a_stalled_replica_gives_everybody_the_whole_time_again(peers: Peers) -> None:
    woken = DOWN_AFTER * 3
    assert peers.lost(woken, BEAT) == []

    assert look(peers, woken + DOWN_AFTER, since=woken) == []
    assert look(peers, woken + DOWN_AFTER + 0.5, since=woken + DOWN_AFTER) == ["a"]


def test_a_pause_that_is_no_stall_changes_nothing(peers: Peers) -> None:
    for step in range(int(DOWN_AFTER / STALL_SECONDS)):
        assert peers.lost((step + 1) * STALL_SECONDS, BEAT) == []

    assert [name for name, _ in peers.lost(DOWN_AFTER + 0.1, BEAT)] == ["a"]


def test_while_the_bus_is_away_nobody_is_dead(peers: Peers) -> None:
    peers.bus_changed(connected=False)
    assert look(peers, 60.0) == []
    peers.bus_changed(connected=True)

    assert look(peers, 60.0 + DOWN_AFTER, since=60.0) == []
    assert look(peers, 61.0 + DOWN_AFTER, since=60.0 + DOWN_AFTER) == ["a"]


@pytest.mark.parametrize(
    ("replica", "incarnation", "known"), [("a", 5, True), ("a", 4, False), ("b", 1, False)]
)
def test_a_farewell_is_for_the_run_that_said_it(
    peers: Peers, replica: str, incarnation: int, known: bool
) -> None:
    assert peers.forget(replica, incarnation) is known
    assert list(peers) == ([] if known else ["a"])


def test_of_the_last_beats_the_one_that_was_quickest_tells_a_clock(peers: Peers) -> None:
    assert peers.clocks() == {}
    peers["a"].clocks.append(99.0)
    peers["a"].clocks.extend((10.0, 30.0, 20.0, 12.0, 11.0))

    assert peers.clocks() == {"a": 30.0}
