"""How many bytes of bodies may be in memory at a time."""

from contextlib import ExitStack

import pytest

from gateway.inflight import LEAST_BYTES, InFlight

LONGEST, EACH, TOTAL = 50_000, 200_000, 500_000


def in_flight() -> InFlight:
    return InFlight(longest=LONGEST, each=EACH, total=TOTAL)


@pytest.mark.parametrize(
    ("length", "counts_for"),
    [
        (0, LEAST_BYTES),
        (1, LEAST_BYTES),
        (10_000, 10_000),
        (LONGEST, LONGEST),
        (10**12, LONGEST),  # not read to its end
        (None, LONGEST),
    ],
)
def test_a_sender_has_so_many_bytes_under_way_at_most(length: int | None, counts_for: int) -> None:
    bodies = in_flight()
    with ExitStack() as under_way:
        for _ in range(EACH // counts_for):
            assert under_way.enter_context(bodies.one_more("s", length))
        with bodies.one_more("s", length) as room:
            assert not room
        with bodies.one_more("another", length) as room:
            assert room
    assert len(bodies) == 0, "nothing is kept of what is over"


def test_all_senders_together_have_so_many_bytes_at_most() -> None:
    bodies = in_flight()
    with ExitStack() as under_way:
        for number in range(TOTAL // LONGEST):
            assert under_way.enter_context(bodies.one_more(f"s{number}", LONGEST))
        with bodies.one_more("last", 0) as room:
            assert not room
    with bodies.one_more("last", LONGEST) as room:
        assert room


def test_what_is_over_makes_room_however_it_ended() -> None:
    bodies = InFlight(longest=LONGEST, each=2 * LONGEST, total=TOTAL)
    with bodies.one_more("s", None) as first:
        assert first
        with pytest.raises(ConnectionError), bodies.one_more("s", None):
            raise ConnectionError
        with bodies.one_more("s", None) as room:
            assert room
            with bodies.one_more("s", 0) as refused:
                assert not refused
    assert len(bodies) == 0
