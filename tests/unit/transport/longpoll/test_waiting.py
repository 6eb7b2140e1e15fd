"""How much the POSTs of one long-poll session may hold in memory."""

from contextlib import ExitStack

import pytest

from gateway.transport.longpoll.waiting import (
    LEAST_BYTES,
    MAX_BODY_BYTES,
    MAX_WAITING_BYTES,
    Waiting,
)


@pytest.mark.parametrize(
    ("length", "counts_for"),
    [
        (0, LEAST_BYTES),
        (1, LEAST_BYTES),
        (100_000, 100_000),
        (MAX_BODY_BYTES, MAX_BODY_BYTES),
        (10**12, MAX_BODY_BYTES),  # not read to its end
        (None, MAX_BODY_BYTES),
    ],
)
def test_a_session_has_so_many_bytes_under_way_at_most(length: int | None, counts_for: int) -> None:
    waiting = Waiting()
    fit = MAX_WAITING_BYTES // counts_for
    with ExitStack() as posts:
        for _ in range(fit):
            assert posts.enter_context(waiting.one_more("s", length))
        with waiting.one_more("s", length) as room:
            assert not room
        with waiting.one_more("another", length) as room:
            assert room
    assert len(waiting) == 0, "nothing is kept of what is over"


def test_what_is_over_makes_room_however_it_ended() -> None:
    waiting = Waiting()
    with waiting.one_more("s", None) as first:
        assert first
        with pytest.raises(ConnectionError), waiting.one_more("s", None):
            raise ConnectionError
        with waiting.one_more("s", None) as room:
            assert room
            with waiting.one_more("s", 0) as refused:
                assert not refused
    assert len(waiting) == 0
