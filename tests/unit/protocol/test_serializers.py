"""Both wire formats, byte for byte, and what they make of input that is not theirs."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.messages import (
    Message,
    Outgoing,
    Undecodable,
    close_message,
    error_reply,
    ok_reply,
)
from gateway.protocol.reasons import Reason
from gateway.protocol.serializer import Serializer
from gateway.protocol.v1 import V1
from gateway.protocol.v2 import V2

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=10,
)
NAMES = st.text(max_size=60)


def short_as_ref(value: object) -> bool:
    """Whether a JSON value may be a ref."""
    return len(json.dumps(value, ensure_ascii=False).encode(errors="replace")) <= 255


def v1_text(topic: Any, event: Any, payload: Any, ref: Any, **more: Any) -> str:
    """A V1 frame as a client writes it."""
    return json.dumps({"topic": topic, "event": event, "payload": payload, "ref": ref, **more})


def test_v2_decodes_the_five_elements() -> None:
    message = V2().decode('["1","2","room:1","shout",{"a": [1, 2]}]')

    assert message == Message(b'"1"', b'"2"', "room:1", "shout", b'{"a": [1, 2]}')


def test_v2_ignores_elements_after_the_fifth() -> None:
    assert V2().decode('[1,2,"t","e",{},"x",9]') == Message(b"1", b"2", "t", "e", b"{}")


@pytest.mark.parametrize("ref", ["1", "0", "null", '"a\\u00e9"', "1.50", '{"x": 1}', "[]", "true"])
def test_refs_of_any_json_type_are_kept_verbatim(ref: str) -> None:
    message = V2().decode(f'[{ref}, {ref} ,"t","e",{{}}]')
    reply = V2().encode(ok_reply(message.join_ref, message.ref, b'"t"'))

    assert message.ref == ref.encode()
    assert reply == f'[{ref},{ref},"t","phx_reply",{{"status":"ok","response":{{}}}}]'.encode()


def test_a_payload_is_passed_on_byte_for_byte() -> None:
    payload = '{ "b":1.0,"a" : [1e2 ,"\\u00e9\\/ü😀"], "a":12345678901234567890123 }'
    message = V2().decode(f'[null,null,"t","e",{payload}]')

    assert V2().broadcast("t", "e", message.payload) == f'[null,null,"t","e",{payload}]'.encode()


def test_v1_needs_no_join_ref_and_keeps_one() -> None:
    assert V1().decode(v1_text("t", "e", {}, "1")).join_ref == b"null"
    assert V1().decode(v1_text("t", "e", {}, "1", join_ref="7")).join_ref == b'"7"'


def test_v1_sends_no_join_ref() -> None:
    encoded = V1().encode(close_message(b'"7"', b'"room:1"'))

    assert json.loads(encoded) == {
        "topic": "room:1",
        "event": "phx_close",
        "payload": {},
        "ref": "7",
    }


def test_v1_broadcast_has_a_null_ref() -> None:
    assert V1().broadcast("t", "e", b"{}") == b'{"topic":"t","event":"e","payload":{},"ref":null}'


def test_v2_binary_push() -> None:
    # 00 push | lengths 1 1 10 4 | "1" "2" "room:lobby" "ping" | 01 02 03 ff 00
    data = bytes.fromhex("0001010a043132726f6f6d3a6c6f62627970696e67010203ff00")

    assert V2().decode_binary(data) == Message(
        b'"1"', b'"2"', "room:lobby", "ping", b"\x01\x02\x03\xff\x00", binary=True
    )


def test_v2_binary_broadcast() -> None:
    # 02 broadcast | lengths 10 5 | "room:lobby" "shout" | de ad be ef
    expected = bytes.fromhex("020a05726f6f6d3a6c6f62627973686f7574deadbeef")

    assert V2().broadcast_binary("room:lobby", "shout", b"\xde\xad\xbe\xef") == expected


def test_v1_has_no_binary_broadcast_but_reads_json_from_a_binary_frame() -> None:
    assert V1().broadcast_binary("t", "e", b"x") is None
    assert V1().decode_binary(v1_text("t", "e", {}, "1").encode()).ref == b'"1"'


@pytest.mark.parametrize(
    "data",
    ["", "00", "0100000000", "000505", "0001010a04", "000100000080", "000001000080", "ff" * 9],
    ids=["empty", "short", "reply kind", "truncated", "no body", "ref", "topic utf-8", "noise"],
)
def test_bad_binary_is_undecodable(data: str) -> None:
    with pytest.raises(Undecodable) as caught:
        V2().decode_binary(bytes.fromhex(data))

    assert caught.value.reply is None
    assert caught.value.malformed


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "",
        "null",
        "{}",
        "[]",
        '["1"]',
        '"s"',
        '["1","1","t","e",{"a":tru}]',
        "[" * 90_000,
    ],
)
def test_a_v2_frame_without_a_ref_gets_no_reply(text: str) -> None:
    with pytest.raises(Undecodable) as caught:
        V2().decode(text)

    assert caught.value.reply is None
    assert caught.value.malformed


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        ('["1","7"]', "phoenix"),
        ('["1","7","room:lobby"]', "room:lobby"),
        ('["1","7","room:lobby","e"]', "room:lobby"),
        ('["1","7","room:lobby",5,{}]', "room:lobby"),
        ('["1","7",42,"e"]', 42),
        (json.dumps(["1", "7", "x" * 256, "e", {}]), "x" * 256),
        (json.dumps(["1", "7", "é" * 128, "e", {}]), "é" * 128),
        (json.dumps(["1", "7", "t", "x" * 256, {}]), "t"),
    ],
)
def test_a_malformed_v2_frame_with_a_ref_is_answered(text: str, topic: object) -> None:
    with pytest.raises(Undecodable) as caught:
        V2().decode(text)

    assert caught.value.malformed
    assert caught.value.reply is not None
    response = {"status": "error", "response": {"reason": "malformed"}}
    expected = [None, "7", topic, "phx_reply", response]
    assert json.loads(V2().encode(caught.value.reply)) == expected


@pytest.mark.parametrize(
    ("serializer", "text"),
    [(V2(), '["1","7",42,"phx_join",{}]'), (V1(), v1_text(42, "phx_join", {}, "7"))],
)
def test_a_topic_that_is_no_string_is_unmatched_and_not_malformed(
    serializer: Serializer, text: str
) -> None:
    with pytest.raises(Undecodable) as caught:
        serializer.decode(text)

    assert not caught.value.malformed
    assert caught.value.reply == Outgoing(
        b"null",
        b'"7"',
        b"42",
        b'"phx_reply"',
        b'{"status":"error","response":{"reason":"unmatched topic"}}',
    )


LONE = [
    r"\ud83d",
    r"\uD83D",
    r"\udc00",
    r"a\ud83db",
    r"\ud83d\ud83d\ude00",
    r"\\\ud83d",
    r"\ud83d\\udc00",
]
"""Inside of JSON strings that have half of a UTF-16 pair, as ``JSON.stringify`` writes it."""


@pytest.mark.parametrize("lone", LONE)
@pytest.mark.parametrize(
    "fields",
    [
        ('"7"', '"t"', '"e"', '{{"a":["{}"]}}'),
        ('"7"', '"t"', '"e"', '{{"{}":1}}'),
        ('"7"', '"t"', '"{}"', "{{}}"),
        ('"7"', '"t{}"', '"phx_join"', "{{}}"),
        ('"{}"', '"t"', '"e"', "{{}}"),
        ('"7"', "5", "5", '"{}"'),
    ],
    ids=["payload", "key", "event", "topic", "ref", "and more is wrong"],
)
def test_lone_surrogates_are_malformed_and_answered_with_ref_and_topic_as_sent(
    fields: tuple[str, ...], lone: str
) -> None:
    ref, topic, event, payload = (field.format(lone) for field in fields)
    v1 = f'{{"topic":{topic},"event":{event},"payload":{payload},"ref":{ref}}}'
    texts: list[tuple[Serializer, str]] = [
        (V2(), f'["1",{ref},{topic},{event},{payload}]'),
        (V2(), f'["{lone}",{ref},{topic},{event},{payload}]'),
        (V1(), v1),
    ]
    for serializer, text in texts:
        json.loads(text)  # the grammar allows it
        with pytest.raises(Undecodable) as caught:
            serializer.decode(text)
        assert caught.value.malformed
        assert caught.value.reply == error_reply(
            b"null", ref.encode(), topic.encode(), Reason.MALFORMED
        )


@pytest.mark.parametrize("text", [r"\ud83d\ude00", r"\\ud83d", r"\\\\udc00", r"\u0000ud83d"])
def test_what_only_looks_like_a_lone_surrogate_is_none(text: str) -> None:
    message = V2().decode(f'["1","2","t","e",{{"a":"{text}"}}]')

    assert message.payload == f'{{"a":"{text}"}}'.encode()


@given(
    st.lists(st.sampled_from(["\\", "u", "ud83d", "\\ud83d", "\\ude00", "u0000", "d", '"', " "]))
)
def test_any_json_with_surrogates_is_answered(pieces: list[str]) -> None:
    text = f'["1","2","t","e","{"".join(pieces)}"]'
    try:
        elements = json.loads(text)
    except ValueError:
        return
    if len(elements) < 5:
        return
    try:
        ref = V2().decode(text).ref
    except Undecodable as problem:
        ref = b"" if problem.reply is None else problem.reply.ref
    assert ref == b'"2"'


@pytest.mark.parametrize("missing", ["topic", "event", "payload"])
def test_v1_needs_its_four_keys(missing: str) -> None:
    fields = {"topic": "t", "event": "e", "payload": {}, "ref": "7"}
    del fields[missing]

    with pytest.raises(Undecodable) as caught:
        V1().decode(json.dumps(fields))

    assert caught.value.reply is not None
    assert caught.value.reply.ref == b'"7"'


def test_255_bytes_of_topic_and_event_are_enough() -> None:
    name = "x" * 255

    assert V2().decode(json.dumps([None, "1", name, name, {}])).topic == name


@pytest.mark.parametrize(
    ("join_ref", "ref"),
    [
        ("j" * 254, "7"),
        ("7", "j" * 254),
        ("j" * 65_000, "j" * 65_000),
        ("é" * 127, "7"),
        ([1] * 200, "7"),
    ],
    ids=["join_ref", "ref", "both", "bytes count", "no string"],
)
@pytest.mark.parametrize("topic", ["room:1", 5])
def test_refs_above_255_bytes_are_malformed_and_not_echoed(
    join_ref: object, ref: str, topic: object
) -> None:
    texts: list[tuple[Serializer, str]] = [
        (V2(), json.dumps([join_ref, ref, topic, "phx_join", {}], ensure_ascii=False)),
        (V1(), v1_text(topic, "phx_join", {}, ref, join_ref=join_ref)),
    ]
    for serializer, text in texts:
        with pytest.raises(Undecodable) as caught:
            serializer.decode(text)
        if topic == 5 and ref == "7":
            assert not caught.value.malformed, "unmatched, whatever its join_ref"
            continue
        assert caught.value.malformed
        assert caught.value.reply == error_reply(
            b"null",
            b'"7"' if ref == "7" else b"null",
            json.dumps(topic).encode(),
            Reason.MALFORMED,
        )


def test_255_bytes_of_ref_and_join_ref_are_enough() -> None:
    ref = "j" * 253

    assert V2().decode(json.dumps([ref, ref, "t", "e", {}])).ref == json.dumps(ref).encode()
    assert V1().decode(v1_text("t", "e", {}, ref, join_ref=ref)).ref == json.dumps(ref).encode()


def test_refs_of_binary_frames_are_as_long_as_those_of_text() -> None:
    longest = bytes((0, 253, 253, 1, 1)) + b"j" * 506 + b"te"
    assert V2().decode_binary(longest).ref == b'"%b"' % (b"j" * 253)
    for data, echo in (
        (bytes((0, 254, 1, 1, 1)) + b"j" * 254 + b"7te", b'"7"'),
        (bytes((0, 1, 100, 1, 1)) + b"j" + b"\0" * 100 + b"te", b"null"),
    ):
        with pytest.raises(Undecodable) as caught:
            V2().decode_binary(data)
        assert caught.value.reply == error_reply(b"null", echo, b'"t"', Reason.MALFORMED)


@given(NAMES, NAMES, JSON_VALUES.filter(short_as_ref), JSON_VALUES)
def test_any_v2_message_survives(topic: str, event: str, ref: object, payload: object) -> None:
    text = json.dumps([ref, ref, topic, event, payload], ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate cannot come out of a WebSocket text frame
    message = V2().decode(text)
    again = json.loads(V2().broadcast(message.topic, message.event, message.payload))

    assert again == [None, None, topic, event, payload]
    assert json.loads(message.ref) == ref


@given(st.text())
def test_no_text_does_worse_than_undecodable(text: str) -> None:
    for serializer in (V1(), V2()):
        with contextlib.suppress(Undecodable):
            serializer.decode(text)


@given(st.binary())
def test_no_bytes_do_worse_than_undecodable(data: bytes) -> None:
    for serializer in (V1(), V2()):
        with contextlib.suppress(Undecodable):
            serializer.decode_binary(data)
