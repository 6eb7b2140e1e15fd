"""Channel rules: which one a topic hits, and whom it admits."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.auth.claims import Claims
from gateway.auth.rules import Rules


class Channel(msgspec.Struct):
    """A rule as configured."""

    pattern: str
    join: Any = "authenticated"
    push: Any = "deny"
    echo: bool = True
    presence: Any = False
    history: Any = None
    slow_consumer: Any = "disconnect"
    upstream_url: str = ""


def claims_of(said: dict[str, str]) -> Claims:
    """Claims by name; the claim ``topics`` names ``t:1`` alone."""
    return Claims(said.get("sub", ""), float("inf"), others=said, topics=("t:1",))


def matched(pattern: str, topic: str) -> bool:
    """Whether a pattern matches."""
    return Rules([Channel(pattern)]).match(topic) is not None


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("lobby", "lobby", True),
        ("lobby", "lobby2", False),
        ("room:*", "room:1", True),
        ("room:*", "room:1:2", True),
        ("room:*", "room:", True),
        ("room:*", "rooms:1", False),
        ("*", "", True),
        ("*", "a\nb", True),
        ("a.c", "abc", False),
        ("user:{sub}", "user:42", True),
        ("user:{sub}", "user:a:b", True),
        ("user:{sub}", "user:", False),
        ("org:{org}:news", "org:1:news", True),
        ("org:{org}:news", "org:1:2:news", False),
        ("org:{org}:user:{sub}", "org:1:user:a:b", True),
        ("org:{org}:*", "org:1:x:y", True),
    ],
)
def test_patterns(pattern: str, topic: str, expected: bool) -> None:
    assert matched(pattern, topic) is expected


def test_the_first_match_wins() -> None:
    rules = Rules([Channel("room:secret", push="deny"), Channel("room:*", push="broadcast")])

    assert getattr(rules.match("room:secret"), "pattern", None) == "room:secret"
    assert getattr(rules.match("room:1"), "pattern", None) == "room:*"
    assert rules.match("other") is None


@pytest.mark.parametrize(
    ("channel", "topic", "claims", "expected"),
    [
        (Channel("a", join="anyone"), "a", None, True),
        (Channel("a", join="anyone"), "a", {"sub": "1"}, True),
        (Channel("a"), "a", None, False),
        (Channel("a"), "a", {"sub": "1"}, True),
        (Channel("user:{sub}"), "user:1", {"sub": "1"}, True),
        (Channel("user:{sub}"), "user:2", {"sub": "1"}, False),
        (Channel("user:{sub}"), "user:1", None, False),
        (Channel("user:{sub}", join="anyone"), "user:1", None, False),
        (Channel("user:{sub}", join="anyone"), "user:2", {"sub": "1"}, False),
        (Channel("org:{org}:{sub}"), "org:o:1", {"sub": "1", "org": "o"}, True),
        (Channel("org:{org}:{sub}"), "org:p:1", {"sub": "1", "org": "o"}, False),
        (Channel("org:{org}:{sub}"), "org:o:1", {"sub": "1"}, False),
        (Channel("org:{org}:{sub}"), "org:a:b:c", {"org": "a:b", "sub": "c"}, False),
        (Channel("{sub}:{sub}"), "1:1", {"sub": "1"}, True),
        (Channel("{sub}:{sub}"), "2:1", {"sub": "1"}, False),
        (Channel("{sub}:{sub}"), "1:2", {"sub": "1"}, False),
        (Channel("t:*", join="token"), "t:1", {"sub": "1"}, True),
        (Channel("t:*", join="token"), "t:2", {"sub": "1"}, False),
        (Channel("t:*", join="token"), "t:1", None, False),
        (Channel("t:{sub}", join="token"), "t:1", {"sub": "1"}, True),
        (Channel("t:{sub}", join="token"), "t:1", {"sub": "2"}, False),
        # the backend is asked about whom the pattern lets through, anonymous clients too
        (Channel("a", join="upstream"), "a", None, True),
        (Channel("a", join="upstream"), "a", {"sub": "1"}, True),
        (Channel("user:{sub}", join="upstream"), "user:2", {"sub": "1"}, False),
        (Channel("user:{sub}", join="upstream"), "user:2", None, False),
    ],
)
def test_admission(
    channel: Channel, topic: str, claims: dict[str, str] | None, expected: bool
) -> None:
    rule = Rules([channel]).match(topic)

    assert rule is not None
    assert rule.admits(topic, None if claims is None else claims_of(claims)) is expected


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_placeholder_in_last_place_admits_its_own_claim_and_no_other(
    mine: str, other: str
) -> None:
    rule = Rules([Channel("user:{sub}")]).match(f"user:{other}")

    assert rule is not None
    assert rule.admits(f"user:{other}", claims_of({"sub": mine})) is (mine == other)
