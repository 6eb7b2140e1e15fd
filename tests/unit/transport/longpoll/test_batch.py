"""What a long-poll client says, in bodies of all kinds."""

import base64
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.longpoll.batch import (
    LINES_PER_PART,
    NDJSON,
    BatchMessage,
    in_parts,
    messages_in,
)


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (b'["1"]', [BatchMessage(b'["1"]')]),
        (b'["1"]\n["2"]', [BatchMessage(b'["1"]'), BatchMessage(b'["2"]')]),
        (b'["1"]\r\n\n["2"]\n', [BatchMessage(b'["1"]\r'), BatchMessage(b'["2"]')]),
        (
            b'{"topic":"t"}\nAAEC',
            [BatchMessage(b'{"topic":"t"}'), BatchMessage(b"\x00\x01\x02", binary=True)],
        ),
        (b"no base64!", [BatchMessage(b"no base64!")]),
        (b"AAE", [BatchMessage(b"AAE")]),
        (b"", []),
    ],
)
def test_a_batch_has_one_message_a_line(body: bytes, messages: list[BatchMessage]) -> None:
    assert [said for said in messages_in(body, NDJSON, 1000) if said is not None] == messages


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "", "x/y"])
def test_any_other_body_is_one_message(content_type: str) -> None:
    assert list(messages_in(b"[1]\n[2]", content_type, 1000)) == [BatchMessage(b"[1]\n[2]")]


@pytest.mark.parametrize("content_type", [NDJSON, "text/plain"])
def test_what_is_no_text_is_refused_as_a_whole(content_type: str) -> None:
    with pytest.raises(UnicodeDecodeError):
        messages_in(b'["1"]\n["\xff"]', content_type, 1000)


@pytest.mark.parametrize("content_type", [NDJSON, "text/plain"])
@pytest.mark.parametrize("body", [b"[" * 2000, b"[" * 1001, base64.b64encode(b"x" * 2000)])
def test_what_is_too_long_is_still_too_long_and_no_longer(body: bytes, content_type: str) -> None:
    [said] = messages_in(body, content_type, 1000)
    assert said is not None
    assert len(said.data) == 1001


def test_parts_have_so_many_messages_at_most() -> None:
    messages = [BatchMessage(b"[")] * (2 * LINES_PER_PART + 1)
    sizes = [len(part) for part in in_parts(messages, 10**9)]
    assert sizes == [LINES_PER_PART, LINES_PER_PART, 1]
    assert [len(part) for part in in_parts([], 10**9)] == [0]


@pytest.mark.parametrize("blank", [b"\n", b" \t\r\n"])
def test_empty_lines_take_turns_and_are_nothing(blank: bytes) -> None:
    body = blank * (10 * LINES_PER_PART) + b'["1"]\n' + blank * (10 * LINES_PER_PART)
    looked_at = 0

    def counted() -> Iterator[BatchMessage | None]:
        nonlocal looked_at
        for said in messages_in(body, NDJSON, 1000):
            looked_at += 1
            yield said

    seen = 0
    turns: list[int] = []
    found: list[BatchMessage] = []
    for part in in_parts(counted(), 10**9):
        turns.append(looked_at - seen)
        seen = looked_at
        found += part
    assert found == [BatchMessage(b'["1"]')]
    assert sum(turns) == 20 * LINES_PER_PART + 1
    assert max(turns) <= LINES_PER_PART + 1


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 12))
def test_parts_are_the_whole_and_small_enough(sizes: list[int], size: int) -> None:
    messages = [BatchMessage(b"x" * length) for length in sizes]
    parts = list(in_parts(messages, size))

    assert [message for part in parts for message in part] == messages
    for part in parts:
        assert len(part) == 1 or sum(len(m.data) for m in part) <= size
