"""The form of callbacks: bodies joined byte for byte, headers as CloudEvents and Standard Webhooks say."""

import base64
import json
import time
from typing import Any
from urllib.parse import unquote

import msgspec
import pytest
from cloudevents.http import from_http
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from gateway.device import UNKNOWN, Device
from gateway.upstream import call as calls
from gateway.upstream.call import Call, body, headers, source

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
KEYS = ["type", "session", "user", "device", "state", "topic", "event", "payload", "params"]


def headers_of(call: Call, **others: Any) -> dict[str, str]:
    """Headers with what does not matter filled in."""
    defaults: dict[str, Any] = {
        "call_id": "id",
        "source": source("a"),
        "occurred_at": 0.0,
        "now": 0.0,
        "secrets": [],
    }
    return headers(call, body(call), **(defaults | others))


class Slices(msgspec.Struct):
    """What a body has to bring unchanged."""

    state: msgspec.Raw
    payload: msgspec.Raw
    params: msgspec.Raw


names = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | names,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4),
    max_leaves=10,
)


@st.composite
def raw_json(draw: st.DrawFn) -> bytes:
    """JSON as somebody else writes it: with blanks, with escapes or without."""
    return json.dumps(
        draw(values),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 3])),
        separators=draw(st.sampled_from([(",", ":"), (" ,\t", " : ")])),
    ).encode()


@given(st.tuples(raw_json(), raw_json(), raw_json()), names, names, names)
def test_json_arrives_byte_for_byte_and_names_as_they_are(
    raw: tuple[bytes, bytes, bytes], user: str, topic: str, event: str
) -> None:
    state, payload, params = raw
    call = Call(
        calls.PUSH,
        session="s",
        user=user,
        device=Device(id="d"),
        state=state,
        topic=topic,
        event=event,
        payload=payload,
        params=params,
    )

    encoded = body(call)

    slices = msgspec.json.decode(encoded, type=Slices)
    assert [bytes(slices.state), bytes(slices.payload), bytes(slices.params)] == [
        state,
        payload,
        params,
    ]
    decoded = json.loads(encoded)
    assert list(decoded) == KEYS
    assert [decoded["user"], decoded["topic"], decoded["event"]] == [user, topic, event]


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (Call(calls.CONNECT), b'{"type":"gateway.connect"}'),
        (
            Call(calls.CONNECT, session="s", params=b'{"a": "1"}'),
            b'{"type":"gateway.connect","session":"s","state":null,"params":{"a": "1"}}',
        ),
        (
            Call(calls.JOIN, session="s", user="42", device=UNKNOWN, topic="room:1", params=b"{}"),
            b'{"type":"gateway.join","session":"s","user":"42","state":null,"topic":"room:1","params":{}}',
        ),
        (
            Call(
                calls.PUSH,
                session="s",
                device=Device(id="d"),
                state=b"[]",
                topic="t",
                event="e",
                payload=b"[1, 2]",
            ),
            b'{"type":"gateway.push","session":"s","device":{"id":"d"},"state":[],"topic":"t",%b}'
            % b'"event":"e","payload":[1, 2]',
        ),
        (Call("gateway.user.online", user="42"), b'{"type":"gateway.user.online","user":"42"}'),
        (
            Call("gateway.replica.lost", replica="b", sessions=0),
            b'{"type":"gateway.replica.lost","replica":"b","sessions":0}',
        ),
    ],
)
def test_what_is_absent_is_left_away(call: Call, expected: bytes) -> None:
    assert body(call) == expected


@pytest.mark.parametrize(
    ("call", "client"),
    [
        (Call(calls.PUSH, session="s", user="42", ip="192.0.2.1"), "user 42"),
        (Call(calls.CONNECT, session="s", user="42"), "user 42"),
        (Call(calls.JOIN, session="s", ip="192.0.2.1"), "anonymous 192.0.2.1"),
        (Call(calls.CONNECT, ip="2001:db8::1"), "anonymous 2001:0db8:0000:0000"),
        (Call(calls.CONNECT, ip="2001:db8::2:0:0:1"), "anonymous 2001:0db8:0000:0000"),
        (Call(calls.CONNECT, ip="2001:db8:0:1::1"), "anonymous 2001:0db8:0000:0001"),
        (Call("gateway.user.online", user="42"), "events of 42"),
        (Call("gateway.session.ended", session="s", user="42"), "events of 42"),
    ],
)
def test_whose_account_a_callback_goes_on(call: Call, client: str) -> None:
    assert call.client == client
    assert b"ip" not in body(call)


@pytest.mark.parametrize(
    "user", ["42", "Jürgen Müller", "100%", 'a"b', "a%20b", "😀\r\nce-id: x", "·"]
)
def test_a_cloudevents_library_reads_the_event(user: str) -> None:
    call = Call(calls.JOIN, session="s", user=user, topic="room:1")

    event = from_http(
        headers_of(call, call_id="abc", source=source("gw 1/ü"), occurred_at=1_700_000_000.25),
        body(call),
    )

    assert event.get_attributes() == {
        "specversion": "1.0",
        "id": "abc",
        "type": "gateway.join",
        "source": "urn:gateway:gw%25201%252F%25C3%25BC",
        "subject": event["subject"],
        "time": "2023-11-14T22:13:20.250Z",
        "datacontenttype": "application/json",
    }
    # what the binding says a receiver does, and this library leaves to its user
    assert unquote(event["subject"], errors="strict") == user
    assert unquote(event["source"]) == "urn:gateway:gw%201%2F%C3%BC"
    assert event.data["user"] == user


def test_the_subject_is_the_example_of_the_binding() -> None:
    fields = headers_of(Call(calls.JOIN, user="Euro € 😀"))

    assert fields["ce-subject"] == "Euro%20%E2%82%AC%20%F0%9F%98%80"


def test_an_anonymous_client_is_no_subject() -> None:
    assert "ce-subject" not in headers_of(Call(calls.JOIN))


@given(names, names, names)
def test_values_are_printable_and_names_are_fixed(user: str, replica: str, trace: str) -> None:
    fields = headers_of(
        Call(calls.PUSH, user=user, topic=user, event=user, traceparent=trace),
        source=source(replica),
        secrets=[SECRET],
    )

    assert all(value.isascii() and value.isprintable() for value in fields.values())
    assert set(fields) - {"traceparent"} == {
        "content-type",
        "ce-specversion",
        "ce-id",
        "ce-type",
        "ce-source",
        "ce-time",
        "ce-subject",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }


@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        (TRACE, True),
        (TRACE.upper(), False),
        (TRACE + "\n", False),
        (TRACE + "\r\nx: y", False),
        (TRACE[:-1], False),
        (TRACE + "-00", False),
        ("ff" + TRACE[2:], False),
        ("00-" + "0" * 32 + TRACE[35:], False),
        (TRACE[:36] + "0" * 16 + "-01", False),
        ("", False),
    ],
)
def test_a_traceparent_is_passed_on_when_it_is_one(given: str, passed_on: bool) -> None:
    fields = headers_of(Call(calls.PUSH, traceparent=given))

    assert fields.get("traceparent") == (given if passed_on else None)


def test_the_signature_is_of_this_id_time_and_body() -> None:
    call = Call(calls.JOIN, session="s", user="Jürgen")
    fields = headers_of(call, call_id="abc", now=time.time(), secrets=[SECRET])

    assert Webhook(SECRET).verify(body(call), fields) == json.loads(body(call))
    assert fields["webhook-id"] == fields["ce-id"] == "abc"


def test_without_secrets_nothing_is_signed() -> None:
    assert "webhook-signature" not in headers_of(Call(calls.JOIN))
