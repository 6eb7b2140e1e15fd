"""What a stream is made of, and how it is widened."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.bus.subjects import Subjects
from gateway.history.base import HistoryLimits
from gateway.history.stream import is_ours, wanted, widened, with_necessities
from tests.contract.histories import Settings

SUBJECTS = Subjects("gateway")


def wish(
    messages: int = 100, seconds: int = 300, *, replicas: int = 1, max_bytes: int = 0
) -> dict[str, Any]:
    """The configuration that is wanted."""
    settings = Settings(replicas=replicas, max_bytes=max_bytes)
    return wanted(SUBJECTS, HistoryLimits(messages, seconds), settings)


wishes = st.builds(
    wish,
    st.integers(1, 100_000),
    st.integers(1, 10**7),
    replicas=st.integers(1, 5),
    max_bytes=st.integers(0, 10**12),
)


def unlimited_as(value: int) -> float:
    """A limit as a number, where none is the highest."""
    return value if value > 0 else float("inf")


def test_the_stream_is_a_little_wider_than_the_widest_rule() -> None:
    config = wish(100, 300)
    assert config["name"] == "GATEWAY"
    assert config["subjects"] == ["gateway.store.>"]
    assert config["republish"] == {"src": "gateway.store.>", "dest": "gateway.topic.>"}
    assert config["max_msgs_per_subject"] == 101
    assert config["max_age"] == 360 * 10**9
    assert (config["discard"], config["max_bytes"], config["allow_direct"]) == ("old", -1, True)


def test_the_stream_lives_at_least_as_long_as_its_ids() -> None:
    assert wish(1, 1)["max_age"] == wish(1, 1)["duplicate_window"] == 120 * 10**9


@given(wishes, wishes)
def test_widening_never_narrows_and_is_the_same_whoever_comes_first(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    both = widened(one, other)
    for there in (one, other):
        for key in ("max_msgs_per_subject", "max_age", "max_bytes", "num_replicas"):
            assert unlimited_as(both[key]) >= unlimited_as(there[key])
        assert widened(both, there) == both
    assert both == widened(other, one)


def test_what_has_no_limit_gets_none() -> None:
    there = wish() | {"max_age": 0, "max_msgs_per_subject": -1, "max_bytes": -1}
    assert widened(there, wish(max_bytes=5)) == there


def test_what_is_not_known_here_stays_as_it_is() -> None:
    there = wish() | {"metadata": {"a": "b"}, "compression": "s2", "description": "mine"}
    more = widened(there, wish(200))
    assert more == there | {"max_msgs_per_subject": 201}


def test_what_promises_need_is_mended() -> None:
    there = wish() | {"discard": "new", "allow_direct": False}
    del there["republish"]
    assert widened(there, wish()) == wish()


def test_of_a_wish_that_cannot_be_had_the_necessities_are_left() -> None:
    there = wish(10, 100)
    more = widened(there, wish(20, 200, replicas=3))
    assert with_necessities(there, more) == wish(20, 200)


def test_a_stream_of_other_subjects_is_somebody_elses() -> None:
    assert is_ours(wish(), wish())
    assert is_ours({"subjects": ["gateway.store.>", "more"]}, wish())
    assert not is_ours({"subjects": ["orders.>"]}, wish())
    assert not is_ours({}, wish())
