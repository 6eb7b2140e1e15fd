"""Questions: who has to answer, when waiting is over, and what is said to be missing."""

import asyncio

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cluster.questions import (
    ANSWER_SECONDS,
    Answer,
    Answers,
    Question,
    Request,
    decode_answer,
    decode_request,
    encode,
    in_parts,
)
from tests.support.clock import Clock

LIVE = ("a", "b", "c")


def answer(replica: str, *named: str) -> Answer:
    """What a replica answers."""
    return Answer(replica, 0, named, f"from {replica}".encode())


def bodies(*replicas: str) -> dict[str, bytes]:
    """The bodies of these replicas."""
    return {replica: f"from {replica}".encode() for replica in replicas}


async def decided(question: Question) -> Answers:
    """What came of a question that waits for nothing any more."""
    async with asyncio.timeout(0):  # not even a moment
        return await question.wait(LIVE)


async def timed_out(question: Question) -> Answers:
    """What came of a question that was waited for in vain."""
    clock = Clock()
    waiting = asyncio.create_task(question.wait(LIVE))
    await clock.run()
    await clock.run(ANSWER_SECONDS - 0.01)
    assert not waiting.done()
    await clock.run(0.02)
    return waiting.result()


async def test_nobody_asked_is_answered_at_once() -> None:
    assert await decided(Question((), open_ended=False)) == Answers({}, (), complete=True)


async def test_all_that_were_asked_have_answered() -> None:
    question = Question(("a", "b"), open_ended=False)
    question.answered(answer("a"))
    question.answered(answer("b"))

    assert await decided(question) == Answers(bodies("a", "b"), (), complete=True)


async def test_whoever_does_not_answer_is_named() -> None:
    question = Question(("a", "b"), open_ended=False)
    question.answered(answer("b"))

    assert await timed_out(question) == Answers(bodies("b"), ("a",), complete=False)


async def test_who_is_named_in_an_answer_is_waited_for_too() -> None:
    question = Question((), open_ended=True)
    question.answered(answer("a", "a", "b"))
    assert question.give_up(LIVE).missing == ("b",)
    question.answered(answer("b", "a"))

    assert await decided(question) == Answers(bodies("a", "b"), (), complete=True)


async def test_an_open_question_nobody_answers_could_be_anybodys() -> None:
    assert await timed_out(Question((), open_ended=True)) == Answers({}, LIVE, complete=False)


async def test_an_open_question_nobody_hears_is_decided_at_once() -> None:
    question = Question((), open_ended=True)
    question.unheard()

    assert await decided(question) == Answers({}, (), complete=True)


async def test_the_first_answer_ends_the_openness() -> None:
    question = Question((), open_ended=True)
    question.answered(answer("c"))

    assert await decided(question) == Answers(bodies("c"), (), complete=True)


async def test_an_answer_nobody_asked_for_is_taken_and_decides_nothing() -> None:
    question = Question(("a",), open_ended=False)
    question.answered(answer("z"))

    assert await timed_out(question) == Answers(bodies("z"), ("a",), complete=False)


async def test_who_answers_twice_is_counted_once() -> None:
    question = Question(("a", "b"), open_ended=False)
    question.answered(answer("a"))
    question.answered(answer("a"))

    assert await timed_out(question) == Answers(bodies("a"), ("b",), complete=False)


async def test_an_answer_ends_the_waiting() -> None:
    clock = Clock()
    question = Question(("a",), open_ended=False)
    waiting = asyncio.create_task(question.wait(LIVE))
    await clock.run()
    assert not waiting.done()
    question.answered(answer("a"))
    await clock.run()

    assert waiting.result() == Answers(bodies("a"), (), complete=True)


@given(st.binary(max_size=20), st.integers(1, 7))
async def test_an_answer_in_parts_is_whole_again(body: bytes, part_bytes: int) -> None:
    question = Question(("a",), open_ended=False)
    parts = in_parts(Answer("a", 0, ("b",), body), part_bytes)
    assert all(len(part.body) <= part_bytes for part in parts)
    for part in parts:
        assert question.give_up(LIVE).bodies == {}
        question.answered(decode_answer(encode(part)))
    question.answered(answer("b"))

    assert (await decided(question)).bodies["a"] == body


@given(st.integers(0, 3))
def test_an_answer_that_lost_a_part_is_none(lost: int) -> None:
    question = Question(("a",), open_ended=False)
    parts = in_parts(Answer("a", 0, (), b"01234567"), 2)
    for number, part in enumerate(parts):
        if number != lost:
            question.answered(part)

    assert question.give_up(LIVE) == Answers({}, ("a",), complete=False)


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
    question = Question(named, open_ended=open_ended)
    for replica, others in answers:
        question.answered(answer(replica, *others))
    result = question.give_up(LIVE)
    expected = named.union(*(others for _, others in answers))
    if open_ended and not answers:
        expected = frozenset(LIVE)

    assert result.bodies.keys() == {replica for replica, _ in answers}
    assert set(result.missing) == expected - result.bodies.keys()
    assert list(result.missing) == sorted(result.missing)


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
