"""What a long-poll client says, in bodies of all kinds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.batch import NDJSON, Said, in_parts, messages_in


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (b'["1"]', [Said(b'["1"]')]),
        (b'["1"]\n["2"]', [Said(b'["1"]'), Said(b'["2"]')]),
        (b'["1"]\r\n\n["2"]\n', [Said(b'["1"]\r'), Said(b'["2"]')]),
        (b'{"topic":"t"}\nAAEC', [Said(b'{"topic":"t"}'), Said(b"\x00\x01\x02", binary=True)]),
        (b"no base64!", [Said(b"no base64!")]),
        (b"AAE", [Said(b"AAE")]),
        (b"", []),
    ],
)
def test_a_batch_has_one_message_a_line(body: bytes, messages: list[Said]) -> None:
    assert messages_in(body, NDJSON) == messages


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "", "x/y"])
def test_any_other_body_is_one_message(content_type: str) -> None:
    assert messages_in(b"[1]\n[2]", content_type) == [Said(b"[1]\n[2]")]


@pytest.mark.parametrize("content_type", [NDJSON, "text/plain"])
def test_what_is_no_text_is_refused_as_a_whole(content_type: str) -> None:
    with pytest.raises(UnicodeDecodeError):
        messages_in(b'["1"]\n["\xff"]', content_type)


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 12))
def test_parts_are_the_whole_and_small_enough(sizes: list[int], size: int) -> None:
    messages = [Said(b"x" * length) for length in sizes]
    parts = list(in_parts(messages, size))

    assert [message for part in parts for message in part] == messages
    for part in parts:
        assert len(part) == 1 or sum(len(m.data) for m in part) <= size
