"""Calls: who has to answer, when waiting is over, and what is said to be missing."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cluster.calls import (
    Answer,
    Answers,
    Cover,
    PendingCall,
    Request,
    decode_answer,
    decode_request,
    encode,
    in_parts,
)
from tests.support.clock import Clock

LIVE = ("a", "b", "c")
SECONDS = 0.5


def answer(replica: str, *named: str) -> Answer:
    """What a replica answers."""
    return Answer(replica, 0, named, f"from {replica}".encode(), doubted=())


def bodies(*replicas: str) -> dict[str, bytes]:
    """The bodies of these replicas."""
    return {replica: f"from {replica}".encode() for replica in replicas}


async def decided(call: PendingCall) -> Answers[bytes]:
    """What came of a call that waits for nothing any more."""
    assert await call.wait(0)
    return call.answers(LIVE)


async def timed_out(call: PendingCall) -> Answers[bytes]:
    """What came of a call that was waited for in vain."""
    clock = Clock()
    waiting = asyncio.create_task(call.wait(SECONDS))
    await clock.run()
    await clock.run(SECONDS - 0.01)
    assert not waiting.done()
    await clock.run(0.02)
    assert not waiting.result()
    return call.answers(LIVE)


async def test_nobody_asked_is_answered_at_once() -> None:
    assert await decided(PendingCall((), open_ended=False)) == Answers({}, Cover())


async def test_all_that_were_asked_have_answered() -> None:
    call = PendingCall(("a", "b"), open_ended=False)
    call.answered(answer("a"))
    call.answered(answer("b"))

    assert await decided(call) == Answers(bodies("a", "b"), Cover())


async def test_whoever_does_not_answer_is_named() -> None:
    call = PendingCall(("a", "b"), open_ended=False)
    call.answered(answer("b"))

    assert await timed_out(call) == Answers(bodies("b"), Cover(("a",), complete=False))


async def test_who_is_named_in_an_answer_is_waited_for_too() -> None:
    call = PendingCall((), open_ended=True)
    call.answered(answer("a", "a", "b"))
    assert call.answers(LIVE).cover.missing == ("b",)
    call.answered(answer("b", "a"))

    assert await decided(call) == Answers(bodies("a", "b"), Cover())


async def test_an_open_call_nobody_answers_could_be_anybodys() -> None:
    assert await timed_out(PendingCall((), open_ended=True)) == Answers(
        {}, Cover(LIVE, complete=False)
    )


async def test_an_open_call_nobody_hears_is_decided_at_once() -> None:
    call = PendingCall((), open_ended=True)
    call.no_responders().set_result(None)
    await asyncio.sleep(0)

    assert await decided(call) == Answers({}, Cover())


async def test_a_replica_that_is_not_there_is_not_waited_for() -> None:
    call = PendingCall(("a", "b"), open_ended=False)
    call.answered(answer("a"))
    call.no_responders("b").set_result(None)
    await asyncio.sleep(0)

    assert await decided(call) == Answers(bodies("a"), Cover())


async def test_the_first_answer_ends_the_openness() -> None:
    call = PendingCall((), open_ended=True)
    call.answered(answer("c"))

    assert await decided(call) == Answers(bodies("c"), Cover())


async def test_an_answer_nobody_asked_for_is_taken_and_decides_nothing() -> None:
    call = PendingCall(("a",), open_ended=False)
    call.answered(answer("z"))

    assert await timed_out(call) == Answers(bodies("z"), Cover(("a",), complete=False))


async def test_who_answers_twice_is_counted_once() -> None:
    call = PendingCall(("a", "b"), open_ended=False)
    call.answered(answer("a"))
    call.answered(answer("a"))

    assert await timed_out(call) == Answers(bodies("a"), Cover(("b",), complete=False))


async def test_of_two_answers_the_first_counts() -> None:
    """The second time there was nothing left to do."""
    call = PendingCall(("a", "b"), open_ended=False)
    call.answered(Answer("a", 0, (), b"1"))
    call.answered(Answer("a", 0, (), b"0"))
    call.answered(answer("b"))

    assert (await decided(call)).by_replica["a"] == b"1"


async def test_who_is_asked_by_itself_does_not_say_that_there_is_nobody_else() -> None:
    call = PendingCall(("a",), open_ended=True, ask=pytest.fail)
    call.answered(Answer("a", 0, (), b"", doubted=None))

    assert await timed_out(call) == Answers({"a": b""}, Cover(("b", "c"), complete=False))


async def test_those_that_are_doubted_are_asked_once() -> None:
    asked: list[str] = []
    call = PendingCall((), open_ended=True, ask=asked.append)
    call.answered(Answer("a", 0, ("b",), b"", doubted=("b", "c")))
    call.echoed(("d",), ("a", "c", "d"))

    assert asked == ["c"], "those that are named were reached"
    assert await timed_out(call) == Answers({"a": b""}, Cover(("b", "c", "d"), complete=False))


async def test_after_a_silence_all_are_asked_who_have_said_nothing() -> None:
    asked: list[str] = []
    call = PendingCall(("a",), open_ended=True, ask=asked.append)
    call.answered(Answer("a", 0, (), b"", doubted=None))
    call.silence(LIVE)
    assert sorted(asked) == ["b", "c"]
    for replica in asked:
        call.answered(answer(replica))

    assert (await decided(call)).cover == Cover()


async def test_where_that_would_be_too_dear_nobody_else_is_asked() -> None:
    call = PendingCall((), open_ended=True)
    call.echoed(("b",), ("c",))
    call.silence(LIVE)
    assert call.answers(LIVE).cover == Cover(LIVE, complete=False)
    call.answered(Answer("a", 0, (), b"", doubted=("b",)))

    assert await decided(call) == Answers({"a": b""}, Cover())


async def test_an_answer_ends_the_waiting() -> None:
    clock = Clock()
    call = PendingCall(("a",), open_ended=False)
    waiting = asyncio.create_task(call.wait(SECONDS))
    await clock.run()
    assert not waiting.done()
    call.answered(answer("a"))
    await clock.run()

    assert waiting.result()
    assert call.answers(LIVE) == Answers(bodies("a"), Cover())


@given(st.binary(max_size=20), st.integers(1, 7))
async def test_an_answer_in_parts_is_whole_again(body: bytes, part_bytes: int) -> None:
    call = PendingCall(("a",), open_ended=False)
    parts = in_parts(Answer("a", 0, ("b",), body), part_bytes)
    assert all(len(part.body) <= part_bytes for part in parts)
    for part in parts:
        assert call.answers(LIVE).by_replica == {}
        call.answered(decode_answer(encode(part)))
    call.answered(answer("b"))

    assert (await decided(call)).by_replica["a"] == body


@given(st.integers(0, 3))
def test_an_answer_that_lost_a_part_is_none(lost: int) -> None:
    call = PendingCall(("a",), open_ended=False)
    parts = in_parts(Answer("a", 0, (), b"01234567"), 2)
    for number, part in enumerate(parts):
        if number != lost:
            call.answered(part)

    assert call.answers(LIVE) == Answers({}, Cover(("a",), complete=False))


def test_an_answer_that_cannot_be_read_is_missing() -> None:
    call = PendingCall(("a", "b"), open_ended=False)
    call.answered(Answer("a", 0, (), b"7"))
    call.answered(Answer("b", 0, (), b"?"))

    assert call.answers(LIVE).decoded(int) == Answers({"a": 7}, Cover(("b",), complete=False))


def test_a_whole_answer_is_the_same_to_a_release_that_knows_no_parts() -> None:
    class Earlier(msgspec.Struct, array_like=True):
        replica: str
        number: int
        named: tuple[str, ...]
        body: bytes

    data = encode(Answer("a", 7, ("b",), b"x"))
    assert msgspec.msgpack.decode(data, type=Earlier) == Earlier("a", 7, ("b",), b"x")
    earlier = msgspec.msgpack.encode(Earlier("a", 7, ("b",), b"x"))
    assert decode_answer(earlier) == Answer("a", 7, ("b",), b"x")


replicas = st.sampled_from(LIVE)


@given(
    st.frozensets(replicas),
    st.lists(st.tuples(replicas, st.lists(replicas, max_size=2)), max_size=6),
    st.booleans(),
)
def test_nobody_is_both_heard_and_missing(
    named: frozenset[str], answers: list[tuple[str, list[str]]], open_ended: bool
) -> None:
    call = PendingCall(named, open_ended=open_ended)
    for replica, others in answers:
        call.answered(answer(replica, *others))
    result = call.answers(LIVE)
    expected = named.union(*(others for _, others in answers))
    if open_ended and not answers:
        expected = frozenset(LIVE)

    assert result.by_replica.keys() == {replica for replica, _ in answers}
    assert set(result.cover.missing) == expected - result.by_replica.keys()
    assert list(result.cover.missing) == sorted(result.cover.missing)


def test_messages_survive_the_wire() -> None:
    request, reply = Request("a", 7, b"\x00body"), Answer("b", 7, ("c",), b"\xff")

    assert decode_request(encode(request)) == request
    assert decode_answer(encode(reply)) == reply


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x80", b"\x93\xa1a\x01", encode(answer("a")) + b"x"]
)
def test_what_is_no_message_is_a_value_error(data: bytes) -> None:
    for decode in (decode_request, decode_answer):
        with pytest.raises(ValueError):  # noqa: PT011 -- the text is msgspec's
            decode(data)
