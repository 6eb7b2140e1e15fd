"""What the headers of a stored message say."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bus.stream_position import (
    StreamPosition,
    pending_in,
    stream_position_in,
    unix_seconds,
)

HEADERS = (
    b"NATS/1.0\r\nNats-Stream: GATEWAY\r\nNats-Subject: gateway.store.room.1\r\n"
    b"Nats-Sequence: 42\r\nNats-Time-Stamp: 2026-08-06T00:29:27.587861324Z\r\n"
    b"Nats-Last-Sequence: 40\r\n\r\n"
)
"""As nats-server 2.15 wrote them."""

TIME = datetime(2026, 8, 6, 0, 29, 27, 587861, tzinfo=UTC).timestamp()

moments = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1))  # noqa: DTZ001 -- UTC below
lines = st.text(st.characters(exclude_characters="\r\n"), max_size=40)


def test_a_republished_message_says_where_it_stands() -> None:
    position = stream_position_in(HEADERS)
    assert position is not None
    assert (position.offset, position.previous) == (42, 40)
    assert position.time == pytest.approx(TIME, abs=1e-5)
    assert position.subject == "gateway.store.room.1"


def test_a_message_of_a_batch_says_how_many_follow() -> None:
    headers = HEADERS.replace(b"Nats-Last", b"Nats-Num-Pending: 7\r\nNats-Last")
    assert pending_in(headers) == 7
    assert stream_position_in(headers) == stream_position_in(HEADERS)
    assert (
        pending_in(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 3\r\nNats-Last-Sequence: 0\r\n\r\n") == 3
    )
    assert pending_in(HEADERS) == 0


@given(
    offset=st.integers(0, 2**64 - 1),
    previous=st.integers(0, 2**64 - 1),
    moment=moments,
    nanoseconds=st.integers(0, 10**9 - 1),
    said=st.lists(st.tuples(st.sampled_from(["Nats-Msg-Id", "X", "Nats-Sequence"]), lines)),
)
def test_whatever_its_publisher_said_the_server_has_the_last_word(
    offset: int,
    previous: int,
    moment: datetime,
    nanoseconds: int,
    said: list[tuple[str, str]],
) -> None:
    fraction = f".{nanoseconds:09}".rstrip("0").rstrip(".")  # as Go writes it
    before = "".join(f"{name}: {value}\r\n" for name, value in said)
    headers = (
        f"NATS/1.0\r\n{before}Nats-Stream: S\r\nNats-Subject: s.a\r\nNats-Sequence: {offset}\r\n"
        f"Nats-Time-Stamp: {moment:%Y-%m-%dT%H:%M:%S}{fraction}Z\r\nNats-Last-Sequence: {previous}\r\n\r\n"
    ).encode("utf-8", "surrogatepass")
    position = stream_position_in(headers)
    assert position is not None
    assert (position.offset, position.previous) == (offset, previous)
    whole = moment.replace(tzinfo=UTC, microsecond=0).timestamp()
    assert position.time == pytest.approx(whole + nanoseconds / 1e9, abs=1e-5)


@given(st.binary(max_size=300))
def test_no_bytes_do_harm(data: bytes) -> None:
    assert stream_position_in(data) is None
    assert pending_in(data) >= 0


@given(st.integers(0, len(HEADERS)), st.integers(0, len(HEADERS)), st.binary(max_size=5))
def test_no_damaged_headers_do_harm(start: int, end: int, instead: bytes) -> None:
    found = stream_position_in(HEADERS[:start] + instead + HEADERS[end:])
    assert found is None or isinstance(found, StreamPosition)


@pytest.mark.parametrize(
    "line",
    [
        b"Nats-Sequence: 42",
        b"Nats-Time-Stamp: 2026-08-06T00:29:27.587861324Z",
        b"Nats-Last-Sequence: 40",
    ],
)
def test_headers_that_do_not_say_all_say_nothing(line: bytes) -> None:
    assert stream_position_in(HEADERS.replace(line, b"X: 1")) is None
    name = line.partition(b":")[0]
    for value in (b"", b"-1", b"+1", b" 1", b"1_0", b"x", b"9" * 5000, b"2026-08-06T00:29:27"):
        assert stream_position_in(HEADERS.replace(line, name + b": " + value)) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"1970-01-01T00:00:00Z", 0),
        (b"2026-08-06T00:29:27.5Z", 1785976167.5),
        (b"2026-12-31T23:59:59.999Z", 1798761599.999),
    ],
)
def test_a_time_is_read_in_seconds(text: bytes, seconds: float) -> None:
    assert unix_seconds(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"Z",
        b"2026-08-06T00:29:27",
        b"2026-08-06T00:29:27+01:00",
        b"2026-08-06T00:29:nanZ",
        b"2026-08-06T00:29:-1Z",
        b"2026-13-06T00:29:27Z",
        b"2026-08-06T00:29:1.2.3Z",
    ],
)
def test_what_is_no_time_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        unix_seconds(text)
