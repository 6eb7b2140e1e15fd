"""Positions: one spelling each, and nothing else is one."""

import string

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from gateway.history.position import MAX_LENGTH, Position, decode, encode

EPOCHS = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=24)
MILLISECONDS = st.integers(0, (1 << 48) - 1001)
POSITIONS = st.builds(
    Position, EPOCHS, st.integers(0, (1 << 64) - 1), MILLISECONDS.map(lambda ms: ms / 1000)
)


@given(POSITIONS)
def test_a_position_comes_back_from_its_string(position: Position) -> None:
    text = encode(position)

    assert decode(text) == position
    assert encode(decode(text)) == text


@given(POSITIONS)
def test_its_string_needs_no_escaping_anywhere(position: Position) -> None:
    text = encode(position)

    assert text[0] == "@"
    assert len(text) <= MAX_LENGTH <= 60
    assert set(text) <= set(string.ascii_letters + string.digits + "@._-")


@given(EPOCHS, st.floats(0, 4e9))
def test_a_time_is_kept_to_the_millisecond(epoch: str, time: float) -> None:
    assert decode(encode(Position(epoch, 1, time))).time == pytest.approx(time, abs=0.000_501)


def test_a_position_looks_like_this() -> None:
    assert encode(Position("e1", 41, 1.5)) == "@e1.29.5dc"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "@..",
        "e1.29.5dc",
        "@e1.29",
        "@e1.29.5dc.0",
        "@e1.29.5dc\n",
        " @e1.29.5dc",
        "@e1.+29.5dc",
        "@e1.-29.5dc",
        "@e1.2_9.5dc",
        "@e1.0x29.5dc",
        "@e1.029.5dc",
        "@e1.29.05dc",
        "@e1.29.5DC",
        "@e1. 29.5dc",
        "@e1.29.",
        "@.29.5dc",
        "@e 1.29.5dc",
        "@é1.29.5dc",
        "@e1.\u0662\u0669.5dc",  # digits of another script
        "@e1.\uff12\uff19.5dc",
        "@e1.29.5dc\u0000",
        "@" + "e" * 25 + ".29.5dc",
        "@e1." + "1" * 17 + ".5dc",
        "@e1.29." + "1" * 13,
        "@e1." + "9" * 100_000 + ".5dc",
        "@@e1.29.5dc",
    ],
)
def test_what_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a position$"):
        decode(text)


@given(st.text() | st.from_regex(r"@[\w-]{1,26}\.[\w]{1,18}\.[\w]{1,14}", fullmatch=True))
@example("@-.0.0")
def test_any_other_string_is_none_or_the_only_spelling(text: str) -> None:
    try:
        position = decode(text)
    except ValueError:
        return
    assert encode(position) == text


@pytest.mark.parametrize(
    "position",
    [
        Position("", 1, 1.0),
        Position("e.1", 1, 1.0),
        Position("e" * 25, 1, 1.0),
        Position("e1", -1, 1.0),
        Position("e1", 1 << 64, 1.0),
        Position("e1", 1, -1.0),
        Position("e1", 1, 1e300),
        Position("e1", 1, float("nan")),
        Position("e1", 1, float("inf")),
    ],
)
def test_what_cannot_be_encoded_is_refused(position: Position) -> None:
    with pytest.raises(ValueError, match=r"epoch|out of range"):
        encode(position)
