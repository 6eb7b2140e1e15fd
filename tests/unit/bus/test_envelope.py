import json
import struct
from contextlib import suppress
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audience import Audience
from gateway.bus.envelope import Envelope, EnvelopeError, decode, encode

# version 1, kind 1, published_at 2.0, event of 4 bytes, no meta
PLAIN = bytes.fromhex("01 01 4000000000000000 0004 00000000") + b"ping" + b"{}"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
envelopes = st.builds(
    Envelope,
    event=texts,
    payload=st.binary(max_size=300),
    binary=st.booleans(),
    published_at=st.floats(allow_nan=False, allow_infinity=False),
    audience=st.none() | st.builds(Audience, *[st.frozensets(texts, max_size=3)] * 3),
)


def with_meta(meta: bytes, *, version: int = 1, kind: int = 1) -> bytes:
    return struct.pack(">BBdHI", version, kind, 2.0, 4, len(meta)) + b"ping" + meta + b"{}"


def test_an_envelope_has_the_documented_bytes() -> None:
    assert encode(Envelope("ping", b"{}", binary=False, published_at=2.0)) == PLAIN


def test_documented_bytes_are_an_envelope() -> None:
    assert decode(PLAIN) == Envelope("ping", b"{}", binary=False, published_at=2.0)


@given(envelopes)
def test_what_is_encoded_decodes_to_the_same(envelope: Envelope) -> None:
    assert decode(encode(envelope)) == envelope


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_envelope_error(data: bytes) -> None:
    with suppress(EnvelopeError):
        decode(data)


@given(st.binary(max_size=60), st.integers(0, 9), st.integers(0, 60))
def test_garbage_behind_a_right_header_raises_nothing_else(
    rest: bytes, event_bytes: int, meta_bytes: int
) -> None:
    header = struct.pack(">BBdHI", 1, 1, 2.0, event_bytes, meta_bytes)
    with suppress(EnvelopeError):
        decode(header + rest)


@given(envelopes, st.data())
def test_a_part_of_an_envelope_is_never_another_one(
    envelope: Envelope, data: st.DataObject
) -> None:
    whole = encode(envelope)
    cut = data.draw(st.integers(0, len(whole) - len(envelope.payload) - 1))
    with pytest.raises(EnvelopeError, match="truncated"):
        decode(whole[:cut])


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b"", "truncated"),
        (b"\x01", "truncated"),
        (PLAIN[:15], "truncated"),
        (PLAIN[:19], "truncated"),
        (b"\x02" + PLAIN[1:], "version"),
        (b"\x02", "version"),
        (b"\x00" + PLAIN[1:], "version"),
        (b"\x01\x03" + PLAIN[2:], "kind"),
        (b"\x01\x00" + PLAIN[2:], "kind"),
        (struct.pack(">BBdHI", 1, 1, nan, 0, 0), "published_at"),
        (struct.pack(">BBdHI", 1, 1, inf, 0, 0), "published_at"),
        (struct.pack(">BBdHI", 1, 1, 2.0, 1, 0) + b"\xff", "event"),
        (with_meta(b"{"), "meta"),
        (with_meta(b"[]"), "meta"),
        (with_meta(b'{"exclude":["\xff"]}'), "meta"),
        (with_meta(b'{"exclude":"a"}'), "meta"),
        (with_meta(b'{"new":' + b"[" * 20_000 + b"]" * 20_000 + b"}"), "meta"),
    ],
)
def test_each_fault_has_its_label(data: bytes, label: str) -> None:
    with pytest.raises(EnvelopeError) as caught:
        decode(data)
    assert caught.value.label == label


def test_a_later_release_may_add_keys_to_meta() -> None:
    meta = json.dumps({"exclude": ["s1"], "priority": {"of": [1, 2]}}).encode()
    assert decode(with_meta(meta)).audience == Audience(frozenset({"s1"}))


def test_a_payload_is_passed_on_byte_for_byte() -> None:
    payload = b'{ "a" :1.0,\n"\xc3\xa9": "\\u00e9" }\x00\xff'
    assert decode(encode(Envelope("e", payload, binary=True, published_at=0.0))).payload == payload


@pytest.mark.parametrize("event", ["e" * 65_536, "\ud800"])
def test_an_event_that_cannot_be_carried_is_refused(event: str) -> None:
    with pytest.raises(EnvelopeError, match="event"):
        encode(Envelope(event, b"", binary=False, published_at=0.0))
