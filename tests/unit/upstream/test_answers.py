"""Answers, right and wrong and hostile."""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.device import Device
from gateway.errors import UpstreamRefused, UpstreamUnavailable
from gateway.upstream.answers import (
    MAX_BROADCASTS,
    MAX_REFUSAL_BYTES,
    ConnectAnswer,
    JoinAnswer,
    PushAnswer,
    TopicMessage,
    connect_answer,
    event_answer,
    join_answer,
    push_answer,
)

STATE = 32
USER = 8
DEEP = b"[" * 100_000 + b"]" * 100_000


def connect(status: int, body: bytes) -> ConnectAnswer:
    return connect_answer(status, body, max_state_bytes=STATE, max_user_bytes=USER)


def join(status: int, body: bytes) -> JoinAnswer:
    return join_answer(status, body, max_state_bytes=STATE)


def push(status: int, body: bytes) -> PushAnswer:
    return push_answer(status, body, max_state_bytes=STATE)


Read: TypeAlias = Callable[[int, bytes], Any]
READERS: list[Read] = [connect, join, push]


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", ConnectAnswer()),
        (b" \r\n", ConnectAnswer()),
        (b"{}", ConnectAnswer()),
        (b'{"user":null,"device":null}', ConnectAnswer()),
        (b'{"user":"42","later":[{}]}', ConnectAnswer("42")),
        ('{"user":"ÄÖÜß"}'.encode(), ConnectAnswer("ÄÖÜß")),
        (b'{"device":{"id":"d","os":"x"}}', ConnectAnswer(device=Device(id="d"))),
        (b' {"state": [1, 2] }\n', ConnectAnswer(state=b"[1, 2]")),
        (b'{"state":null}', ConnectAnswer(state=b"null")),
    ],
)
def test_a_connect_is_answered(body: bytes, answer: ConnectAnswer) -> None:
    assert connect(200, body) == answer


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", JoinAnswer(b"{}", b"{}", None)),
        (b'{"response":null,"presence":null}', JoinAnswer(b"{}", b"{}", None)),
        (
            b'{"response": {"n" : 1e2} ,"presence":{"name":"\\u00e4"},"state":"s"}',
            JoinAnswer(b'{"n" : 1e2}', b'{"name":"\\u00e4"}', b'"s"'),
        ),
        (b'{"state":"' + b"x" * (STATE - 2) + b'"}', JoinAnswer(state=b'"' + b"x" * 30 + b'"')),
    ],
)
def test_a_join_is_answered(body: bytes, answer: JoinAnswer) -> None:
    assert join(200, body) == answer


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"", PushAnswer(b"{}", None, ())),
        (b'{"broadcast":null}', PushAnswer()),
        (b'{"broadcast":[]}', PushAnswer()),
        (
            b'{"response":{},"state":7,"broadcast":[{"event":"a","payload":{"x": 1},"more":1}]}',
            PushAnswer(b"{}", b"7", (TopicMessage("a", b'{"x": 1}'),)),
        ),
        (
            b'{"response":{"id":7},"broadcast":[{"event":"phx_x","payload":{}}]}',
            PushAnswer(b'{"id":7}', None, (TopicMessage("phx_x", b"{}"),)),
        ),
        (
            b'{"broadcast":[{"event":"a","payload":{},"id":"7 ~"},{"event":"a","payload":{},"id":null}]}',
            PushAnswer(broadcast=(TopicMessage("a", b"{}", "7 ~"), TopicMessage("a", b"{}"))),
        ),
        (
            b'{"broadcast":[' + b",".join([b'{"event":"a","payload":{}}'] * MAX_BROADCASTS) + b"]}",
            PushAnswer(broadcast=(TopicMessage("a", b"{}"),) * MAX_BROADCASTS),
        ),
    ],
)
def test_a_push_is_answered(body: bytes, answer: PushAnswer) -> None:
    assert push(200, body) == answer


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_success_counts(read: Read, status: int) -> None:
    assert read(status, b"") is not None


HOSTILE = [
    pytest.param(b"<html>", id="a page"),
    pytest.param(b"\x1f\x8b\x08\x00\x00", id="gzip"),
    pytest.param(b"[]", id="an array"),
    pytest.param(b"null", id="null"),
    pytest.param(b'"{}"', id="a string"),
    pytest.param(b"{}{}", id="two objects"),
    pytest.param(b'{"a":', id="cut off"),
    pytest.param(b'{"a":NaN}', id="NaN"),
    pytest.param(b'{"other":"\xff"}', id="no UTF-8 in a key nobody knows"),
    pytest.param(b'{"state":"\xc0\xa0"}', id="overlong UTF-8 in the state"),
    pytest.param(b'{"other":' + DEEP + b"}", id="nested deeply"),
    pytest.param(b'{"state":' + DEEP + b"}", id="state nested deeply"),
    pytest.param(b'{"state":"' + b"x" * (STATE - 1) + b'"}', id="state one byte too long"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
    pytest.param('{"state":1}'.encode("utf-16"), id="UTF-16"),
]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("body", HOSTILE)
def test_a_body_of_another_shape_is_no_answer(read: Read, body: bytes) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        read(200, body)

    assert caught.value.reason == "answer"
    assert caught.value.detail


@pytest.mark.parametrize(
    "body",
    [
        b'{"user":""}',
        b'{"user":"123456789"}',
        '{"user":"ÄÖÜßx"}'.encode(),
        b'{"user":42}',
        b'{"user":"\\ud800"}',
        b'{"device":"phone"}',
        b'{"device":{"id":1}}',
        b'{"device":{"id":"' + b"x" * 129 + b'"}}',
    ],
)
def test_a_connect_is_not_answered_by(body: bytes) -> None:
    with pytest.raises(UpstreamUnavailable, match="answer"):
        connect(200, body)


@pytest.mark.parametrize("key", ["response", "presence"])
@pytest.mark.parametrize("value", ["[]", '"x"', "1", "true", '{"a":"\xff"}', "{]"])
def test_a_join_is_not_answered_by(key: str, value: str) -> None:
    with pytest.raises(UpstreamUnavailable, match="answer"):
        join(200, f'{{"{key}":{value}}}'.encode("latin-1"))


@pytest.mark.parametrize(
    "broadcast",
    [
        b"{}",
        b'"x"',
        b"[null]",
        b'[{"event":"a"}]',
        b'[{"payload":{}}]',
        b'[{"event":1,"payload":{}}]',
        b'[{"event":"a","payload":null}]',
        b'[{"event":"a","payload":{},"id":""}]',
        b'[{"event":"a","payload":{},"id":7}]',
        b'[{"event":"a","payload":{},"id":"\\u00e4"}]',
        b'[{"event":"a","payload":{},"id":"' + b"x" * 129 + b'"}]',
        b'[{"event":"a","payload":[]}]',
        b'[{"event":"' + b"x" * 256 + b'","payload":{}}]',
        b'[{"event":"' + "ä".encode() * 128 + b'","payload":{}}]',
        b"[" + b",".join([b'{"event":"a","payload":{}}'] * (MAX_BROADCASTS + 1)) + b"]",
    ],
)
def test_a_push_is_not_answered_by(broadcast: bytes) -> None:
    with pytest.raises(UpstreamUnavailable, match="answer"):
        push(200, b'{"broadcast":' + broadcast + b"}")


def test_what_is_wrong_is_said_without_a_word_of_the_answer() -> None:
    for body in (
        b'{"user":"private-private"}',
        b'{"state":"private"',
        b'{"device":{"id":["private"]}}',
    ):
        with pytest.raises(UpstreamUnavailable) as caught:
            connect(200, body)
        assert "private" not in str(caught.value)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("body", "passed_on"),
    [
        (b'{"reason": "muted"}', b'{"reason": "muted"}'),
        (b' {"reason":1}\n', b'{"reason":1}'),
        (b"", b"{}"),
        (b"Forbidden", b"{}"),
        (b'["reason"]', b"{}"),
        (b"null", b"{}"),
        (b'{"reason":"\xff"}', b"{}"),
        (b'{"reason":' + DEEP[:1000] + b"}", b"{}"),
        (b'{"r":"' + b"x" * (MAX_REFUSAL_BYTES - 8) + b'"}', b'{"r":"' + b"x" * 4088 + b'"}'),
        (b'{"r":"' + b"x" * (MAX_REFUSAL_BYTES - 7) + b'"}', b"{}"),
    ],
)
@pytest.mark.parametrize("status", [400, 403, 422, 499])
def test_a_refusal_brings_its_object(
    read: Read, status: int, body: bytes, passed_on: bytes
) -> None:
    with pytest.raises(UpstreamRefused) as caught:
        read(status, body)

    assert (caught.value.status, caught.value.body) == (status, passed_on)


@pytest.mark.parametrize("read", [*READERS, event_answer])
@pytest.mark.parametrize("status", [101, 199, 300, 302, 304, 500, 503, 599, 600, 999])
def test_other_statuses_are_no_answer(read: Read, status: int) -> None:
    with pytest.raises(UpstreamUnavailable) as caught:
        read(status, b"{}")

    assert caught.value.reason == str(status)


def test_an_event_is_answered_by_the_status_alone() -> None:
    for status in (200, 204):
        event_answer(status, b"<html>")
    with pytest.raises(UpstreamRefused) as caught:
        event_answer(404, b"<html>")

    assert (caught.value.status, caught.value.body) == (404, b"{}")


@given(st.binary(max_size=64) | st.text().map(str.encode))
def test_whatever_comes_is_an_answer_or_none(body: bytes) -> None:
    for read in (connect, join, push):
        try:
            read(200, body)
        except UpstreamUnavailable:
            continue
        assert not body.strip() or isinstance(json.loads(body), dict)
