from hypothesis import given
from hypothesis import strategies as st

from gateway.history.jetstream.stream import ServerClock


@given(
    offset=st.floats(-1e6, 1e6),
    there=st.floats(0, 5),
    back=st.floats(0, 5),
    later=st.floats(0, 1000),
)
def test_the_reckoned_time_is_late_by_at_most_a_round_trip_and_never_early(
    offset: float, there: float, back: float, later: float
) -> None:
    now = 1000.0
    clock = ServerClock(lambda: now)
    asked = clock.mark()
    now += there
    answer = now + offset
    now += back
    clock.observe(asked, answer)
    now += later
    wrong = clock.now() - (now + offset)
    assert -1e-6 <= wrong <= there + back + 1e-6
