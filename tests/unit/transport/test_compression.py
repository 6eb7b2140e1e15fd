"""Compression: what is agreed, what becomes of a broadcast, and what a client may send."""

import random
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hub.broadcast import Broadcast
from gateway.transport.compression import LONGEST_BYTES, LONGEST_OFFER, Deflater, inflate, negotiate
from gateway.transport.framing import BINARY, CLOSE, RSV1, TEXT, close_frame, frame, header_size
from gateway.transport.websocket import WEBSOCKET_ENCODINGS, compressed_encodings
from tests.unit.transport.shell import (
    CONTINUATION,
    MAX_BYTES,
    PING,
    PONG,
    Shell,
    client_frame,
)

NAME = "permessage-deflate"
AGREED = f"{NAME}; server_no_context_takeover; client_no_context_takeover"
SECTION = bytes.fromhex
COMPRESSED = 4
"""The first of a frame's reserved bits."""


def deflated(data: bytes, *, bits: int = 15, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """A message's payload as a client compresses it."""
    deflate = zlib.compressobj(wbits=-bits)
    return (deflate.compress(data) + deflate.flush(flush)).removesuffix(b"\x00\x00\xff\xff")


def deflater(min_bytes: int = 1) -> Deflater:
    """One that counts for nobody."""
    return Deflater(min_bytes, before=lambda _: None, after=lambda _: None)


def read(data: bytes) -> bytes:
    """What a client reads in a frame that is compressed."""
    assert data[0] & RSV1
    return inflate(data[header_size(data) :], LONGEST_BYTES)


@pytest.mark.parametrize(
    ("offers", "answer"),
    [
        ([], ""),
        ([""], ""),
        (["foo"], ""),
        ([NAME], AGREED),
        ([f"{NAME}; client_max_window_bits"], AGREED),
        ([f"{NAME};client_max_window_bits=10"], f"{AGREED}; client_max_window_bits=10"),
        ([f'{NAME}; client_max_window_bits="8"'], f"{AGREED}; client_max_window_bits=8"),
        ([f"{NAME}; server_no_context_takeover"], AGREED),
        ([f"{NAME}; client_no_context_takeover; server_no_context_takeover"], AGREED),
        ([f"{NAME}; server_max_window_bits=15"], f"{AGREED}; server_max_window_bits=15"),
        # all get the same bytes, so nobody can have a window of her own
        ([f"{NAME}; server_max_window_bits=14"], ""),
        # what RFC 7692 has an offer declined for (section 7.1)
        ([f"{NAME}; unheard_of"], ""),
        ([f"{NAME}; server_no_context_takeover=1"], ""),
        ([f"{NAME}; server_no_context_takeover; server_no_context_takeover"], ""),
        ([f"{NAME}; server_max_window_bits"], ""),
        ([f"{NAME}; server_max_window_bits=7"], ""),
        ([f"{NAME}; server_max_window_bits=16"], ""),
        ([f"{NAME}; server_max_window_bits=015"], ""),
        ([f"{NAME}; client_max_window_bits=16"], ""),
        # of several the first that can be met, in one header or in more
        ([f"{NAME}; server_max_window_bits=10, {NAME}"], AGREED),
        ([f"foo; bar=1, {NAME}; unheard_of", f"{NAME}; client_max_window_bits"], AGREED),
        ([f"{NAME}; client_max_window_bits=9, {NAME}"], f"{AGREED}; client_max_window_bits=9"),
        # what is no list of extensions, or too long a one, is passed over
        ([f"{NAME}; ="], ""),
        ([f"{NAME} {NAME}"], ""),
        (["x" * LONGEST_OFFER, NAME], ""),
    ],
)
def test_what_is_agreed(offers: list[str], answer: str) -> None:
    assert negotiate(offers) == answer


@given(st.binary(max_size=300), st.sampled_from([TEXT, BINARY]), st.integers(1, 5000))
def test_what_is_compressed_inflates_to_the_same(unit: bytes, opcode: int, times: int) -> None:
    payload = unit * times
    plain = frame(opcode, payload)
    sent = deflater()(plain)

    assert len(sent) <= len(plain)
    assert sent == plain or (sent[0] == 0x80 | RSV1 | opcode and read(sent) == payload)


@given(st.binary(max_size=3000), st.integers(9, 15), st.sampled_from(["Z_SYNC_FLUSH", "Z_FINISH"]))
def test_what_a_client_compresses_is_read(data: bytes, bits: int, flush: str) -> None:
    sent = deflated(data, bits=bits, flush=getattr(zlib, flush))

    assert inflate(sent, len(data)) == data
    if data:
        assert inflate(sent, len(data) - 1) == data, "one byte more shows that it is too long"


@pytest.mark.parametrize(
    "sent",
    [
        SECTION("f2 48 cd c9 c9 07 00"),  # 7.2.3.1
        SECTION("00 05 00 fa ff 48 65 6c 6c 6f 00"),  # 7.2.3.3, a block without compression
        SECTION("f3 48 cd c9 c9 07 00 00"),  # 7.2.3.4, the last block of all
        SECTION("f2 48 05 00 00 00 ff ff ca c9 c9 07 00"),  # 7.2.3.5, two blocks
    ],
)
def test_the_examples_of_the_rfc(sent: bytes) -> None:
    assert inflate(sent, 5) == b"Hello"


def test_an_empty_message_is_one_byte() -> None:
    assert inflate(b"\x00", 5) == b""  # 7.2.3.6


@pytest.mark.parametrize(
    "sent", [b"\xff\xff", b"plain", deflated(b"cut off" * 9)[:-9], deflated(b"x" * 99)[:1]]
)
def test_what_is_not_compressed_or_not_all_there_is_an_error(sent: bytes) -> None:
    with pytest.raises(zlib.error):
        inflate(sent, 1000)


@pytest.mark.parametrize("size", [0, 99, LONGEST_BYTES + 1])
def test_short_and_very_long_messages_are_left_alone(size: int) -> None:
    plain = frame(TEXT, b"x" * size)

    assert deflater(100)(plain) is plain


def test_bytes_before_and_after_are_counted() -> None:
    before: list[int] = []
    after: list[int] = []
    compress = Deflater(100, before=before.append, after=after.append)
    sent = compress(plain := frame(TEXT, b"x" * 1000))
    compress(noise := frame(BINARY, random.Random(1).randbytes(200)))
    compress(frame(TEXT, b"short"))

    assert before == [len(plain), len(noise)]
    assert after == [len(sent), len(noise)]


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("positions", [False, True])
def test_a_broadcast_to_many_is_compressed_and_nothing_else(version: str, positions: bool) -> None:
    plain = WEBSOCKET_ENCODINGS[version]
    compressed = compressed_encodings(deflater())[version]
    if positions:
        plain, compressed = plain.with_positions, compressed.with_positions
    message = Broadcast("t", "e", b'{"n":[%b]}' % b",".join([b"1"] * 500), position=b'"@1"')
    text = plain.broadcast(message)

    assert text is not None
    assert read(compressed.broadcast(message) or b"") == text[header_size(text) :]
    assert compressed.broadcast(message, shared=False) == text
    assert compressed.broadcast(Broadcast("t", "e", b"\x00", binary=True)) == plain.broadcast(
        Broadcast("t", "e", b"\x00", binary=True)
    )


def shell() -> Shell:
    """A socket whose client may compress."""
    return Shell(inflates=True)


LONG = "ä" * (MAX_BYTES // 2)


@pytest.mark.parametrize(
    "frames",
    [
        client_frame(TEXT, deflated(LONG.encode()), reserved=COMPRESSED),
        client_frame(TEXT, LONG.encode()),  # none has to be
        client_frame(TEXT, deflated(LONG.encode())[:3], fin=False, reserved=COMPRESSED)
        + client_frame(PING)
        + client_frame(CONTINUATION, deflated(LONG.encode())[3:], fin=False)
        + client_frame(CONTINUATION),
        client_frame(TEXT, fin=False, reserved=COMPRESSED)
        + client_frame(CONTINUATION, deflated(LONG.encode())),
        client_frame(TEXT, LONG.encode()[:3], fin=False)
        + client_frame(CONTINUATION, LONG.encode()[3:]),
    ],
    ids=["whole", "plain", "fragments", "empty-fragment", "plain-fragments"],
)
@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_messages_come_compressed_or_not_in_any_pieces(frames: bytes, piece: int) -> None:
    it = shell()
    for data in (frames, client_frame(BINARY, deflated(b"\xff"), reserved=COMPRESSED), frames):
        for at in range(0, len(data), piece):
            it.feed(data[at : at + piece])

    assert it.connection.messages == [LONG, b"\xff", LONG]
    assert it.sent.replace(frame(PONG, b""), b"") == b""


@pytest.mark.parametrize(
    "frames",
    [
        client_frame(CONTINUATION, b"x", reserved=COMPRESSED),
        client_frame(TEXT, deflated(b"x"), fin=False, reserved=COMPRESSED)
        + client_frame(CONTINUATION, reserved=COMPRESSED),
        client_frame(PING, reserved=COMPRESSED),
        client_frame(CLOSE, b"\x03\xe8", reserved=COMPRESSED),
        client_frame(TEXT, deflated(b"x"), reserved=COMPRESSED | 2),
        client_frame(TEXT, b"x", reserved=1),
        client_frame(TEXT, deflated(b"x"), reserved=COMPRESSED, masked=False),
    ],
    ids=["alone", "second", "ping", "close", "second-bit", "third-bit", "unmasked"],
)
async def test_the_bit_in_any_other_frame_is_a_fault(frames: bytes) -> None:
    it = shell()
    it.feed(frames)

    assert (it.sent, it.connection.messages) == (close_frame(1002), [])


async def test_the_bit_is_a_fault_where_nothing_was_agreed() -> None:
    for frames in (
        client_frame(TEXT, deflated(b"x"), reserved=COMPRESSED),
        client_frame(TEXT, deflated(b"x"), fin=False, reserved=COMPRESSED),
    ):
        it = Shell()
        it.feed(frames)
        assert (it.sent, it.connection.messages) == (close_frame(1002), [])


BOMB = deflated(bytes(50 * MAX_BYTES))


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (client_frame(TEXT, BOMB, reserved=COMPRESSED), 1009),
        (client_frame(TEXT, deflated(b"x" * (MAX_BYTES + 1)), reserved=COMPRESSED), 1009),
        (
            client_frame(TEXT, BOMB[:9], fin=False, reserved=COMPRESSED)
            + client_frame(CONTINUATION, BOMB[9:]),
            1009,
        ),
        # nothing at all, said at length
        (client_frame(TEXT, b"\x00\x00\x00\xff\xff" * MAX_BYTES, reserved=COMPRESSED), 1009),
        (
            client_frame(TEXT, b"\x03\x00", fin=False, reserved=COMPRESSED)
            + client_frame(CONTINUATION, bytes(600), fin=False) * 2,
            1009,
        ),
        (client_frame(TEXT, b"{}", reserved=COMPRESSED), 1007),
        (client_frame(TEXT, deflated(b"\xff"), reserved=COMPRESSED), 1007),
        (client_frame(TEXT, deflated(b"cut off" * 9)[:-9], reserved=COMPRESSED), 1007),
    ],
    ids=[
        "bomb",
        "a-byte-more",
        "bomb-in-fragments",
        "padding",
        "behind-the-end",
        "plain",
        "utf-8",
        "cut",
    ],
)
async def test_bombs_and_broken_ones_are_refused(frames: bytes, code: int) -> None:
    it = shell()
    it.feed(frames)

    assert (it.sent, it.connection.messages) == (close_frame(code), [])


async def test_no_more_of_a_bomb_is_inflated_than_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []

    def spy(data: Any, most: int) -> bytes:
        sizes.append(len(result := inflate(data, most)))
        return result

    monkeypatch.setattr("gateway.transport.websocket.inflate", spy)
    it = shell()
    it.feed(client_frame(TEXT, BOMB, reserved=COMPRESSED))

    assert sizes == [MAX_BYTES + 1]


async def test_only_what_needs_the_core_has_one() -> None:
    it = shell()
    it.feed(client_frame(TEXT, deflated(b"x"), reserved=COMPRESSED))

    assert it.connection.messages == ["x"]
    assert it.socket._core is None


async def test_what_is_inflated_counts_for_the_turn() -> None:
    it = shell()
    it.feed(client_frame(TEXT, deflated(b"x" * MAX_BYTES), reserved=COMPRESSED))
    left = it.replica.backlog.left
    it = shell()
    it.feed(client_frame(TEXT, b"x" * MAX_BYTES))

    assert left < it.replica.backlog.left
