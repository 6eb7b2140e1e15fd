"""The message rate of one client."""

from gateway.transport.rate import RateLimit


def test_no_limit_never_pauses() -> None:
    rate = RateLimit(0, 0.0)

    assert all(rate.spend(0.0) == 0.0 for _ in range(1000))


def test_a_seconds_worth_may_come_at_once_and_then_it_is_paced() -> None:
    rate = RateLimit(10, 0.0)

    assert [rate.spend(0.0) for _ in range(10)] == [0.0] * 10
    assert rate.spend(0.0) == 0.1
    assert rate.spend(0.1) == 0.1
    assert rate.spend(5.0) == 0.0


def test_idle_time_saves_up_one_second_at_most() -> None:
    rate = RateLimit(2, 0.0)

    assert [rate.spend(1000.0) > 0 for _ in range(3)] == [False, False, True]
