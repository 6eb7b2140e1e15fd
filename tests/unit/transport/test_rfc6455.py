"""RFC 6455 as a table, in the manner of the Autobahn test suite's sections 1 to 7.

Each row: what a client sends, and what must come of it: the messages that the socket's logic is given, the
frames the client is sent, and the code the connection is closed with.
"""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest

from gateway.transport.framing import BINARY, CLOSE, TEXT, close_frame, frame
from tests.unit.transport.shell import (
    CONTINUATION,
    MAX_BYTES,
    PING,
    PONG,
    Shell,
    client_close,
    client_frame,
)

NORMAL, PROTOCOL, NOT_UTF8, TOO_BIG = 1000, 1002, 1007, 1009


class Row(msgspec.Struct):
    """A case.

    Attributes:
        sent: What the client sends.
        messages: What arrives.
        answers: Frames before a close frame.
        code: Of the close frame; None if it stays open.
    """

    name: str
    sent: bytes
    messages: tuple[str | bytes, ...] = ()
    answers: bytes = b""
    code: int | None = None


def rows() -> Iterator[Row]:
    """All of them."""
    yield from framing()
    yield from pings()
    yield from reserved_bits_and_masks()
    yield from opcodes()
    yield from fragments()
    yield from utf8()
    yield from closes()


def framing() -> Iterator[Row]:
    """Section 1: lengths, in each form they can have."""
    for size in (0, 1, 124, 125, 126, 127, 128, 255, 256, MAX_BYTES - 1, MAX_BYTES):
        yield Row(f"text of {size}", client_frame(TEXT, b"*" * size), ("*" * size,))
        yield Row(f"bytes of {size}", client_frame(BINARY, b"\xfe" * size), (b"\xfe" * size,))
    for form in (126, 127):
        sent = client_frame(TEXT, b"short", length_form=form)
        yield Row(f"a short length in form {form}", sent, ("short",))
    for size in (MAX_BYTES + 1, MAX_BYTES + 125, MAX_BYTES + 126, 65_535, 65_536):
        sent = client_frame(TEXT, b"*" * size)
        yield Row(f"text of {size}, too long", sent, code=TOO_BIG)
    for size in (65_536, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63):
        sent = client_frame(BINARY, b"begins", length=size)
        yield Row(f"a frame that says it has {size}", sent, code=TOO_BIG)


def pings() -> Iterator[Row]:
    """Section 2: pings are answered with what they carry, pongs are not."""
    for payload in (b"", b"hello", b"\x00\xff\xfe", b"\xfe" * 125):
        yield Row(f"ping of {len(payload)}", client_frame(PING, payload), (), frame(PONG, payload))
        yield Row(f"pong of {len(payload)}", client_frame(PONG, payload))
    yield Row("ping of 126", client_frame(PING, b"\xfe" * 126), code=PROTOCOL)
    yield Row("pong of 126", client_frame(PONG, b"\xfe" * 126), code=PROTOCOL)
    yield Row("ping of 65536", client_frame(PING, b"\xfe" * 65_536), code=TOO_BIG)
    sent = client_frame(PONG, b"unasked") + client_frame(PING, b"1")
    yield Row("ping behind a pong", sent, (), frame(PONG, b"1"))
    many = [str(n).encode() for n in range(10)]
    yield Row(
        "ten pings in order",
        b"".join(client_frame(PING, each) for each in many),
        (),
        b"".join(frame(PONG, each) for each in many),
    )


def reserved_bits_and_masks() -> Iterator[Row]:
    """Section 3, and the mask each frame of a client must have (5.1)."""
    before = client_frame(TEXT, b"good")
    for bits in range(1, 8):
        for opcode in (TEXT, BINARY, PING, CLOSE):
            sent = before + client_frame(opcode, reserved=bits)
            yield Row(f"reserved bits {bits} of opcode {opcode}", sent, ("good",), code=PROTOCOL)
    for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
        sent = before + client_frame(opcode, b"", masked=False)
        yield Row(f"opcode {opcode} without a mask", sent, ("good",), code=PROTOCOL)
    part = client_frame(TEXT, b"a", fin=False) + client_frame(CONTINUATION, b"b", masked=False)
    yield Row("continuation without a mask", part, code=PROTOCOL)


def opcodes() -> Iterator[Row]:
    """Section 4: those that mean nothing."""
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Row(f"opcode {opcode}", client_frame(opcode), code=PROTOCOL)
        sent = client_frame(PING) + client_frame(opcode, b"payload")
        yield Row(f"opcode {opcode} with payload", sent, answers=frame(PONG, b""), code=PROTOCOL)


def fragments() -> Iterator[Row]:
    """Section 5: messages in parts."""
    first, last = client_frame(TEXT, b"one", fin=False), client_frame(CONTINUATION, b"two")
    more = client_frame(CONTINUATION, b"and", fin=False)
    ping, pong = client_frame(PING, b"p"), frame(PONG, b"p")
    yield Row("two parts", first + last, ("onetwo",))
    yield Row("three parts", first + more + last, ("oneandtwo",))
    yield Row("two messages in parts", (first + last) * 2, ("onetwo", "onetwo"))
    bytes_first = client_frame(BINARY, b"\xff", fin=False)
    yield Row("bytes in parts", bytes_first + last, (b"\xfftwo",))
    yield Row("ping between", first + ping + last, ("onetwo",), pong)
    yield Row("pings between", first + ping + more + ping + last, ("oneandtwo",), pong * 2)
    yield Row("pong between", first + client_frame(PONG) + last, ("onetwo",))
    yield Row("empty parts", _empty(first=True) + _empty() + client_frame(CONTINUATION), ("",))
    middle = _empty(first=True) + client_frame(CONTINUATION, b"x", fin=False)
    yield Row("empty but in the middle", middle + client_frame(CONTINUATION), ("x",))
    yield Row("ping in parts", client_frame(PING, b"1", fin=False), code=PROTOCOL)
    yield Row("pong in parts", client_frame(PONG, b"1", fin=False), code=PROTOCOL)
    close_part = client_frame(CLOSE, b"\x03\xe8", fin=False)
    yield Row("close in parts", close_part, code=PROTOCOL)
    yield Row("a last part of nothing", last, code=PROTOCOL)
    yield Row("a part of nothing", more, code=PROTOCOL)
    yield Row("a part behind the last", first + last + more, ("onetwo",), code=PROTOCOL)
    whole = client_frame(TEXT, b"whole")
    yield Row("text between", first + whole, code=PROTOCOL)
    yield Row("bytes between", first + client_frame(BINARY, b"b"), code=PROTOCOL)
    yield Row("a second beginning", first + first, code=PROTOCOL)
    half = client_frame(TEXT, b"*" * (MAX_BYTES // 2), fin=False)
    rest = client_frame(CONTINUATION, b"*" * (MAX_BYTES // 2))
    yield Row("parts of the greatest length", half + rest, ("*" * MAX_BYTES,))
    too_much = half + client_frame(CONTINUATION, b"*" * (MAX_BYTES // 2 + 1), fin=False)
    yield Row("parts too long before the last", too_much, code=TOO_BIG)
    last_too_long = half + client_frame(CONTINUATION, b"*" * (MAX_BYTES // 2 + 1))
    yield Row("a last part too long", last_too_long, code=TOO_BIG)
    ones = client_frame(TEXT, b"1", fin=False) + client_frame(CONTINUATION, b"1", fin=False) * 98
    yield Row("a hundred parts", ones + client_frame(CONTINUATION, b"1"), ("1" * 100,))


def _empty(*, first: bool = False) -> bytes:
    return client_frame(TEXT if first else CONTINUATION, fin=False)


GOOD_TEXT = [
    "κόσμε",
    "\x00",
    "\x7f",
    "\x80",
    "߿",
    "ࠀ",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "\ufeffx",
]
BAD_TEXT = [
    b"\x80",  # begins with a continuation
    b"\xbf\xbf",
    b"\xc0\xaf",  # overlong
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x8f\xbf\xbf",
    b"\xf8\x88\x80\x80\x80",  # five bytes
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xed\xa0\x80",  # a surrogate
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",  # above U+10FFFF
    b"\xfe",
    b"\xff",
    b"ab\xc3",  # cut short
    b"ab\xe2\x82",
    b"ab\xf0\x9f\x98",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64",
]


def utf8() -> Iterator[Row]:
    """Section 6: text is UTF-8 as a whole, wherever it is cut."""
    for text in GOOD_TEXT:
        data = text.encode()
        yield Row(f"text {text!r}", client_frame(TEXT, data), (text,))
        parts = [client_frame(TEXT, data[:1], fin=False)]
        parts += [
            client_frame(CONTINUATION, data[n : n + 1], fin=False) for n in range(1, len(data))
        ]
        sent = b"".join(parts) + client_frame(CONTINUATION)
        yield Row(f"text {text!r} byte by byte", sent, (text,))
    for data in BAD_TEXT:
        yield Row(f"no text {data!r}", client_frame(TEXT, data), code=NOT_UTF8)
        halves = client_frame(TEXT, data[:1], fin=False) + client_frame(CONTINUATION, data[1:])
        yield Row(f"no text {data!r} in parts", halves, code=NOT_UTF8)
        yield Row(f"bytes {data!r}", client_frame(BINARY, data), (data,))


def closes() -> Iterator[Row]:
    """Section 7: the end of it. Every valid close is answered with 1000, as Phoenix does."""
    message = client_frame(TEXT, b"m")
    for code in (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999):
        yield Row(f"close {code}", client_close(code), code=NORMAL)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield Row(f"close {code}, which nobody may send", client_close(code), code=PROTOCOL)
    yield Row("close without a code", client_frame(CLOSE), code=NORMAL)
    yield Row("close with half a code", client_frame(CLOSE, b"\x03"), code=PROTOCOL)
    yield Row("close with a reason", client_close(1000, "grüße".encode()), code=NORMAL)
    yield Row("close with the longest reason", client_close(1000, b"*" * 123), code=NORMAL)
    yield Row("close with a longer reason", client_close(1000, b"*" * 124), code=PROTOCOL)
    yield Row("close with a reason that is no text", client_close(1000, b"\xff"), code=NOT_UTF8)
    yield Row("message before close", message + client_close(1000), ("m",), code=NORMAL)
    yield Row("message behind close", client_close(1000) + message, code=NORMAL)
    yield Row("ping behind close", client_close(1000) + client_frame(PING), code=NORMAL)
    yield Row("two closes", client_close(1000) * 2, code=NORMAL)
    within = client_frame(TEXT, b"a", fin=False) + client_close(1000)
    yield Row("close within a message", within + client_frame(CONTINUATION, b"b"), code=NORMAL)


ROWS = list(rows())


def test_there_are_many() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 120


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 20])
async def test_what_a_client_sends_has_this_answer(row: Row, piece_bytes: int) -> None:
    """However the bytes are cut on their way."""
    shell = Shell()
    piece_bytes = max(piece_bytes, len(row.sent) // 2000)
    for at in range(0, len(row.sent), piece_bytes):
        if shell.transport.closed:
            break
        shell.feed(row.sent[at : at + piece_bytes])
        for _ in range(len(row.sent)):
            if shell.transport.reading or shell.transport.closed:
                break
            await asyncio.sleep(0)

    assert tuple(shell.connection.messages) == row.messages
    closing = b"" if row.code is None else close_frame(row.code)
    assert shell.sent == row.answers + closing
    assert shell.ended == (row.code is not None)
