"""What a stream is made of, and how it is widened."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bus.subjects import Subjects
from gateway.config.sections import HistorySettings
from gateway.history.base import Narrowed
from gateway.history.jetstream.stream import (
    is_ours,
    narrowed_in,
    stream_config,
    widened,
    with_necessities,
    with_note,
)
from gateway.retention import Retention

SUBJECTS = Subjects("gateway")


def wanted(
    messages: int = 100, seconds: int = 300, *, replicas: int = 1, max_bytes: int = 0
) -> dict[str, Any]:
    """The configuration that is wanted."""
    settings = HistorySettings(replicas=replicas, max_bytes=max_bytes)
    return stream_config(SUBJECTS, Retention(messages, seconds), settings)


configs = st.builds(
    wanted,
    st.integers(1, 100_000),
    st.integers(1, 10**7),
    replicas=st.integers(1, 5),
    max_bytes=st.integers(0, 10**12),
)


def unlimited_as(value: int) -> float:
    """A limit as a number, where none is the highest."""
    return value if value > 0 else float("inf")


def test_the_stream_is_a_little_wider_than_the_widest_rule() -> None:
    config = wanted(100, 300)
    assert config["name"] == "GATEWAY"
    assert config["subjects"] == ["gateway.store.>"]
    assert config["republish"] == {"src": "gateway.store.>", "dest": "gateway.topic.>"}
    assert config["max_msgs_per_subject"] == 101
    assert config["max_age"] == 360 * 10**9
    assert (config["discard"], config["max_bytes"], config["allow_direct"]) == ("old", -1, True)


def test_the_stream_lives_at_least_as_long_as_its_ids() -> None:
    assert wanted(1, 1)["max_age"] == wanted(1, 1)["duplicate_window"] == 120 * 10**9


@given(configs, configs)
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
    there = wanted() | {"max_age": 0, "max_msgs_per_subject": -1, "max_bytes": -1}
    assert widened(there, wanted(max_bytes=5)) == there


def test_what_is_not_known_here_stays_as_it_is() -> None:
    there = wanted() | {"metadata": {"a": "b"}, "compression": "s2", "description": "mine"}
    more = widened(there, wanted(200))
    assert more == there | {"max_msgs_per_subject": 201}


def test_what_promises_need_is_mended() -> None:
    there = wanted() | {"discard": "new", "allow_direct": False}
    del there["republish"]
    assert widened(there, wanted()) == wanted()


def test_of_what_is_wanted_and_cannot_be_had_the_necessities_are_left() -> None:
    there = wanted(10, 100)
    more = widened(there, wanted(20, 200, replicas=3))
    assert with_necessities(there, more) == wanted(20, 200)


def test_a_stream_of_other_subjects_is_somebody_elses() -> None:
    assert is_ours(wanted(), wanted())
    assert is_ours({"subjects": ["gateway.store.>", "more"]}, wanted())
    assert not is_ours({"subjects": ["orders.>"]}, wanted())
    assert not is_ours({}, wanted())


def test_who_widens_what_is_kept_of_a_topic_leaves_a_note() -> None:
    there = wanted(4) | {"metadata": {"a": "b"}}
    more = with_note(widened(there, wanted(10)), there, 1000.5)
    assert more["metadata"] == {"a": "b", "gateway.narrowed": "5 1000.500"}
    assert narrowed_in(more) == Narrowed(5, 1000.5)
    assert with_necessities(there, more) == more
    later = with_note(widened(more, wanted(20)), more, 2000.0)
    assert narrowed_in(later) == Narrowed(5, 2000.0), "the least there was"


def test_who_widens_anything_else_leaves_none() -> None:
    there = wanted(10, 100)
    more = widened(there, wanted(10, 200))
    assert with_note(more, there, 1000.0) == more
    assert narrowed_in(more) is None


@pytest.mark.parametrize("note", ["", "x", "5", "5 x", "-5 1.000", "5 1e9", "5 nan", "5 1.000 6"])
def test_a_note_of_somebody_elses_is_none(note: str) -> None:
    assert narrowed_in(wanted() | {"metadata": {"gateway.narrowed": note}}) is None
