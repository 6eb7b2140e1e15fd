"""Resuming: what is asked for, and what is answered."""

import contextlib
import json
import sys

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gateway.history.base import Stored
from gateway.history.position import Position, encode
from gateway.history.resume import (
    NOWHERE,
    After,
    FromNow,
    InvalidResume,
    Loss,
    NeedMissed,
    NeedNewest,
    Newest,
    Outcome,
    ResumeRequest,
    examine,
    parse,
    response,
    without_history,
)
from tests.unit.history.model import RETENTION

NOW = 5000.0
HERE = Position("e1", 60, NOW - 0.5)
POSITION = Position("e1", 41, 4990.0)


def stored(*offsets: int, age: float = 5.0) -> list[Stored]:
    """Messages of an age."""
    return [Stored(offset, NOW - age, b"") for offset in offsets]


def ask(request: ResumeRequest, sent: Position | None = None) -> Outcome | NeedMissed | NeedNewest:
    """A request, at a stream whose last offset is 70; this replica has delivered up to 60."""
    return examine(request, RETENTION, here=HERE, last=70, now=NOW, sent=sent)


def missed(position: Position = POSITION, sent: Position | None = None) -> NeedMissed:
    """What a position needs that is not refused at once."""
    found = ask(After(position), sent)
    assert isinstance(found, NeedMissed)
    return found


def latest(count: int, sent: Position | None = None) -> NeedNewest:
    """What asking for the newest messages needs."""
    found = ask(Newest(count), sent)
    assert isinstance(found, NeedNewest)
    return found


def lost(reason: Loss) -> Outcome:
    """Nothing is recovered."""
    return Outcome(recovered=False, reason=reason, position=HERE)


@pytest.mark.parametrize(
    ("params", "request_"),
    [
        (None, None),
        (b"null", None),
        (b"[]", None),
        (b'["resume"]', None),
        (b'"resume"', None),
        (b"7", None),
        (b"true", None),
        (b"{}", None),
        (b'{"a":{"resume":null}}', None),
        (b'{"Resume":null}', None),
        (b'{"resume":null}', FromNow()),
        (b' { "a" : [1,2] , "resume" : null } ', FromNow()),
        (b'{"re\\u0073ume":null}', FromNow()),
        (b'{"a":"\xff","resume":null}', FromNow()),  # nobody looks at the rest
        (b'{"resume":"@e1.29.5dc"}', After(Position("e1", 41, 1.5))),
        (b'{"resume":"\\u0040e1.29.5dc"}', After(Position("e1", 41, 1.5))),
        (b'{"resume":"@-.0.0"}', After(NOWHERE)),
        (b'{"resume":{"last":1}}', Newest(1)),
        (b'{"resume":{"last":5}}', Newest(5)),
        # of two keys of one name the last counts, as in JavaScript
        (b'{"resume":5,"resume":null}', FromNow()),
        (b'{"resume":{"last":0,"last":2}}', Newest(2)),
    ],
)
def test_what_a_join_asks_for(params: bytes | None, request_: ResumeRequest | None) -> None:
    assert parse(params, RETENTION) == request_


@pytest.mark.parametrize(
    "resume",
    [
        b"true",
        b"false",
        b"0",
        b"5",
        b"5.0",
        b"[]",
        b'["@e1.29.5dc"]',
        b"{}",
        b'""',
        b'"e1.29.5dc"',
        b'"@e1.29.5dc "',
        b'"@"',
        b'"\xff"',
        b'"null"',
        b'{"last":0}',
        b'{"last":-1}',
        b'{"last":6}',
        b'{"last":5.0}',
        b'{"last":1e0}',
        b'{"last":true}',
        b'{"last":"5"}',
        b'{"last":null}',
        b'{"last":[5]}',
        b'{"last":5,"first":1}',
        b'{"position":"@e1.29.5dc"}',
        b'{"last":' + b"9" * 5000 + b"}",
        b'{"last":1e999}',
        b"[" * 50_000 + b"]" * 50_000,
        b'{"last":' * 50_000 + b"1" + b"}" * 50_000,
        b'"@' + b"1" * 60_000 + b'"',
    ],
)
def test_what_no_join_can_ask_for(resume: bytes) -> None:
    with pytest.raises(InvalidResume, match=r"^invalid resume$") as refusal:
        parse(b'{"resume":%b}' % resume, RETENTION)
    shown = refusal.value
    assert shown.__cause__ is None
    assert shown.__suppress_context__ or shown.__context__ is None  # nothing of it gets into a log


@pytest.mark.parametrize(
    "params",
    [
        b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b',"resume":null}',
        b'{"resume":null',
        b"",
        b'{"resume":nul}',
    ],
)
def test_params_that_cannot_be_read_are_refused(params: bytes) -> None:
    with pytest.raises(InvalidResume):
        parse(params, RETENTION)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["last", "x"]), inner),
    max_leaves=5,
)


@given(JSON, JSON)
def test_any_other_value_is_refused_or_one_of_the_three(value: object, rest: object) -> None:
    params = json.dumps({"a": rest, "resume": value}).encode("utf-8", "surrogatepass")
    try:
        request = parse(params, RETENTION)
    except InvalidResume:
        assert value is not None
        return
    match request:
        case FromNow():
            assert value is None
        case After(position):
            assert value == encode(position)
        case Newest(count):
            assert value == {"last": count}
            assert 1 <= count <= RETENTION.messages
        case None:
            pytest.fail("the key was there")


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_or_read(params: bytes) -> None:
    with contextlib.suppress(InvalidResume):
        parse(params, RETENTION)


def test_a_topic_without_history_has_no_limit_to_what_is_asked() -> None:
    assert parse(b'{"resume":{"last":1000}}', None) == Newest(1000)
    with pytest.raises(InvalidResume):
        parse(b'{"resume":{"last":0}}', None)


@pytest.mark.parametrize(
    ("request_", "recovered"), [(FromNow(), None), (Newest(5), None), (After(POSITION), False)]
)
def test_a_topic_without_history_says_so(request_: ResumeRequest, recovered: bool | None) -> None:
    outcome = without_history(request_)

    assert outcome == Outcome(recovered, "no_history", NOWHERE)


def test_who_comes_back_to_a_topic_without_history_is_told_each_time() -> None:
    first = without_history(FromNow())
    again = parse(b'{"resume":"%b"}' % encode(first.position).encode(), None)

    assert again is not None
    assert without_history(again).recovered is False


def test_the_position_of_a_topic_without_history_is_none_where_there_is_one() -> None:
    assert ask(After(NOWHERE)) == lost("epoch_changed")


def test_from_now_needs_nothing() -> None:
    assert ask(FromNow()) == Outcome(None, None, HERE)


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        (Position("e0", 41, 4990.0), "epoch_changed"),  # the stream was deleted
        (Position("e0", 41, 1.0), "epoch_changed"),
        (Position("e1", 71, 4990.0), "epoch_changed"),  # the store lost its end
        (Position("e1", 41, 4899.9), "expired"),
        (Position("e1", 0, 0.0), "expired"),
    ],
)
def test_what_is_lost_for_certain_needs_no_read(position: Position, reason: Loss) -> None:
    assert ask(After(position)) == lost(reason)


@pytest.mark.parametrize(
    "position",
    [
        POSITION,
        Position("e1", 41, 4900.0),  # as old as a position may be
        Position("e1", 65, 4999.0),  # another replica was ahead of this one
        Position("e1", 70, 4999.0),
        Position("e1", 0, 4999.0),  # the stream was empty
        Position("e1", 41, 5000.9),  # an estimate
    ],
)
def test_a_position_needs_what_lies_after_it(position: Position) -> None:
    found = missed(position)

    assert (found.position, found.limit) == (position, 6)


@pytest.mark.parametrize(
    ("messages", "stored_at", "reason"),
    [
        (stored(), 4990.0, None),
        (stored(42), 4990.0, None),
        (stored(42, 50, 51, 52, 80), 4990.0, None),
        (stored(42, 50, 51, 52, 53, 54), 4990.0, "too_many"),
        (stored(42, 50, 51, 52, 53, 54, 55, 56), 4990.0, "too_many"),
        (stored(42), 1.0, None),  # nothing came for long, and the position was refreshed
        (stored(42), 4990.9, None),  # clocks differ a little
        (stored(42), 4991.1, "epoch_changed"),  # another message has that offset now
        (stored(), 4991.1, "epoch_changed"),
        (stored(42, 50, 51, 52, 53, 54), 4991.1, "epoch_changed"),
        (stored(42), None, None),  # given up, or vouched for
        (stored(42, age=150.0), 4830.0, None),  # lost for a while, found, and not too old yet
        (stored(42, age=161.0), 4830.0, "expired"),  # a position that was made up
    ],
)
def test_what_a_position_is_answered(
    messages: list[Stored], stored_at: float | None, reason: Loss | None
) -> None:
    outcome = missed().settle(messages, stored_at, known=70)

    if reason is None:
        assert outcome == Outcome(
            recovered=True, reason=None, position=POSITION, replay=messages, known=70
        )
        assert outcome.reached == (messages[-1].offset if messages else 41)
    else:
        assert outcome == lost(reason)
        assert outcome.reached == HERE.offset


@pytest.mark.parametrize(("gone", "reason"), [(False, None), (True, "expired")])
def test_a_full_store_may_have_let_go_of_young_messages(
    gone: bool,
    reason: Loss | None,
) -> None:
    outcome = missed().settle(stored(50), 4990.0, gone=gone)

    assert outcome.reason == reason


def test_the_newest_come_with_the_position_before_them() -> None:
    outcome = latest(2).settle(stored(42, 50), known=70)

    before = Position("e1", 41, NOW - 5.0)
    assert outcome == Outcome(None, None, before, stored(42, 50), 70)
    assert missed(before).settle(stored(42, 50), None).replay == stored(42, 50)


def test_the_newest_are_not_older_than_the_rule_says() -> None:
    old = stored(40, age=100.5)
    young = stored(42, age=99.5)

    assert latest(2).settle([*old, *young]).replay == young
    assert latest(2).settle(old) == Outcome(None, None, HERE)
    assert latest(2).settle([]) == Outcome(None, None, HERE)


def test_no_more_than_asked_for() -> None:
    assert latest(2).settle(stored(42, 50, 51)).replay == stored(50, 51)


SENT = Position("e1", 50, 4995.0)


def test_a_socket_that_joins_again_is_sent_nothing_twice() -> None:
    assert missed(POSITION, SENT).position == SENT
    assert missed(Position("e1", 55, 4996.0), SENT).position.offset == 55
    assert missed(Position("e1", 41, 4999.0), SENT).settle([], None).position == SENT
    assert latest(3, SENT).settle(stored(42, 50, 51)).replay == stored(51)
    assert latest(3, SENT).settle(stored(42, 50)) == Outcome(None, None, HERE)


def test_what_it_was_sent_in_another_epoch_does_not_count() -> None:
    sent = Position("e0", 50, 4995.0)

    assert missed(POSITION, sent).position == POSITION
    assert latest(3, sent).settle(stored(42, 50)).replay == stored(42, 50)


def test_it_may_have_been_sent_more_than_this_replica_has_delivered() -> None:
    ahead = Position("e1", 65, 4999.0)

    assert ask(FromNow(), ahead) == Outcome(None, None, ahead)
    assert ask(After(Position("e0", 1, 1.0)), ahead) == Outcome(
        recovered=False, reason="epoch_changed", position=ahead
    )


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (
            Outcome(recovered=True, reason=None, position=POSITION, replay=stored(42)),
            b'{"recovered":true,"reason":null,"position":"@e1.29.4c2430"}',
        ),
        (
            Outcome(None, None, POSITION),
            b'{"recovered":null,"reason":null,"position":"@e1.29.4c2430"}',
        ),
        *(
            (
                Outcome(recovered=False, reason=reason, position=POSITION),
                b'{"recovered":false,"reason":"%b","position":"@e1.29.4c2430"}' % reason.encode(),
            )
            for reason in ("epoch_changed", "expired", "too_many", "no_history")
        ),
        (
            without_history(FromNow()),
            b'{"recovered":null,"reason":"no_history","position":"@-.0.0"}',
        ),
    ],
)
def test_the_reply(outcome: Outcome, expected: bytes) -> None:
    assert response(outcome) == expected
    assert json.loads(expected)["recovered"] is outcome.recovered


def test_params_nested_as_deeply_as_the_stack_allows_do_not_break_anything() -> None:
    for depth in (10, 100, sys.getrecursionlimit() * 2):
        params = b'{"resume":null,"a":' + b"[" * depth + b"]" * depth + b"}"
        try:
            assert parse(params, RETENTION) == FromNow()
        except InvalidResume:
            assert depth > 100
