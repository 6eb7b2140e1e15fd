"""The benchmark's own counting: too few, too many, too late, and what nobody published."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.performance.ledger import Account, Ledger, payload
from bench.wire import PING, TEXT, LoadError, masked, unmasked

SIZE = 128
PING_FRAME = b"\x89\x02hi"


def texts(first: int, count: int) -> list[bytes]:
    return [b'["t",%b]' % payload(index, SIZE) for index in range(first, first + count)]


def begun(count: int, topics: int = 1, separator: bytes = b"") -> tuple[Ledger, list[bytes]]:
    """A ledger of messages that are all due at 10, 11, … seconds."""
    ledger = Ledger(topics, separator)
    ledger.begin(texts(0, count))
    for index in range(count):
        ledger.sent(index, 10.0 + index)
    return ledger, [unmasked(text) for text in texts(0, count)]


def test_payloads_are_json_of_the_size() -> None:
    assert {len(payload(index, SIZE)) for index in (0, 9, 123_456)} == {SIZE}
    assert payload(7, 40).startswith(b'{"n":1000007,"data":"x')


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40), st.booleans())
def test_what_comes_in_any_pieces_is_counted_once(sizes: list[int], pinged: bool) -> None:
    ledger, frames = begun(8)
    account = ledger.open(0)
    account.next = 0
    stream = b"".join(frames[:3]) + (PING_FRAME if pinged else b"") + b"".join(frames[3:])
    foreign: list[tuple[int, bytes]] = []
    for size in [*sizes, len(stream)]:
        foreign += ledger.take(account, stream[:size], 20.0) if stream else ()
        stream = stream[size:]

    assert foreign == ([(PING, b"hi")] if pinged else [])
    assert sorted(ledger.waits) == [3.0 + each for each in range(8)]
    assert (ledger.missing([account]), ledger.skipped, ledger.repeated) == (0, 0, 0)


def test_several_messages_of_one_frame_are_told_apart() -> None:
    ledger, _ = begun(5, separator=b"\n")
    account = Account(0, 0)

    ledger.take(account, unmasked(b"\n".join(texts(0, 3))), 20.0)
    ledger.take(account, unmasked(texts(3, 1)[0]) + unmasked(b"{}"), 20.0)

    assert (account.next, ledger.missing([account])) == (4, 1)


def test_too_few_are_missing() -> None:
    ledger, frames = begun(5)
    slow, gone = Account(0, 0), Account(0, 0)

    for frame in (frames[0], frames[3]):
        ledger.take(slow, frame, 20.0)

    assert (ledger.skipped, len(ledger.waits)) == (2, 2)
    assert ledger.missing([slow]) == 3
    assert ledger.missing([slow, gone]) == 8


def test_too_many_are_repeated() -> None:
    ledger, frames = begun(3)
    account = Account(0, 0)

    ledger.take(account, b"".join(frames), 20.0)
    ledger.take(account, frames[1], 21.0)
    ledger.take(account, frames[2] * 2, 22.0)

    assert (ledger.repeated, len(ledger.waits), ledger.missing([account])) == (3, 3, 0)


def test_what_comes_after_the_next_has_begun_is_stale() -> None:
    ledger, frames = begun(4)
    account = Account(0, 0)
    ledger.take(account, frames[0], 20.0)
    assert ledger.missing([account]) == 3

    ledger.begin(texts(4, 2))
    ledger.sent(4, 30.0)
    ledger.sent(5, 31.0)
    ledger.take(account, b"".join(frames[1:]) + unmasked(texts(4, 1)[0]), 31.0)

    assert (ledger.stale, ledger.waits, ledger.missing([account])) == (3, [1.0], 1)


def test_who_comes_later_misses_nothing_of_before() -> None:
    ledger, frames = begun(4)
    ledger.begin(texts(4, 1))
    account = ledger.open(0)

    assert (account.next, ledger.missing([account])) == (5, 0)
    assert not ledger.take(account, frames[3], 20.0)
    assert ledger.repeated == 1


@pytest.mark.parametrize("topics", [2, 3, 7])
def test_topics_get_messages_by_turns(topics: int) -> None:
    draw = random.Random(topics)
    ledger = Ledger(topics)
    accounts = [ledger.open(topic) for topic in range(topics)]
    ledger.begin(texts(0, 20))
    given = [(index, draw.random() < 0.7) for index in range(20)]
    for index, arrives in given:
        ledger.sent(index, 10.0)
        if arrives:
            ledger.take(accounts[index % topics], unmasked(texts(index, 1)[0]), 12.0)

    arrived = sum(arrives for _, arrives in given)
    assert len(ledger.waits) == arrived
    assert ledger.missing(accounts) == 20 - arrived


def test_what_nobody_published_ends_the_run() -> None:
    ledger, frames = begun(3, topics=2)

    with pytest.raises(LoadError, match="another topic"):
        ledger.take(Account(1, 1), frames[0], 20.0)
    with pytest.raises(LoadError, match="nobody published"):
        ledger.take(Account(0, 0), unmasked(texts(9, 1)[0]), 20.0)
    with pytest.raises(LoadError, match="nobody published"):
        ledger.take(Account(0, 0), frames[0].replace(b"xx", b"xy", 1), 20.0)


def test_other_frames_are_handed_back() -> None:
    ledger, frames = begun(1)

    assert ledger.take(Account(0, 0), unmasked(b"{}") + frames[0], 20.0) == [(TEXT, b"{}")]
    assert masked(PING, b"") == b"\x89\x80\x00\x00\x00\x00"
