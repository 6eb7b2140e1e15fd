"""What RFC 6455 demands of a server once a WebSocket is open, frame by frame.

A table in the manner of sections 1 to 7 of the Autobahn test suite (its numbers stand beside the groups).
Every case is a list of writes to a TCP socket, and what has to come back: certain frames while the socket
stays, or a close code and the end of the connection. As the gateway echoes nothing but pushes, text is
a heartbeat or a push to a room whose pushes come back to their author.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import pytest

from tests.conformance.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    End,
    Frame,
    RawSocket,
    close,
    frame,
    message,
)
from tests.support.gateway import GatewayProcess
from tests.support.waiting import eventually

PATH: Final = "/socket/websocket?vsn=2.0.0"
LIMIT: Final = 0x10000
"""``limits.max_message_bytes``: the smallest for which the 64-bit form of a length is the shortest one."""

FAILURES: Final = {1002, 1007, 1009}
"""Protocol error, not UTF-8, too big (7.4.1)."""

OK: Final = b'{"status":"ok","response":{}}'
HEARTBEAT: Final = b'[null,"beat","phoenix","heartbeat",{}]'
BEATEN: Final = Frame(TEXT, b'[null,"beat","phoenix","phx_reply",%b]' % OK)
LAST: Final = frame(TEXT, b'[null,"last","phoenix","heartbeat",{}]')
LASTED: Final = Frame(TEXT, b'[null,"last","phoenix","phx_reply",%b]' % OK)
PUSHED: Final = Frame(TEXT, b'["1","2","room:rfc","phx_reply",%b]' % OK)


class Case(msgspec.Struct, frozen=True):
    """Writes, and what comes back.

    Attributes:
        name: What the client does.
        sends: One write each.
        gets: Frames of the server's, before its close frame if there is one.
        codes: The close code, or several where the RFC leaves the choice (None: a close frame without
            one). Empty where the socket stays and a heartbeat is answered.
    """

    name: str
    sends: tuple[bytes, ...]
    gets: tuple[Frame, ...] = ()
    codes: tuple[int | None, ...] = ()


def stays(name: str, sends: Iterable[bytes], gets: Iterable[Frame] = ()) -> Case:
    return Case(name, tuple(sends), tuple(gets))


def ends(
    name: str,
    code: int | tuple[int | None, ...],
    sends: Iterable[bytes],
    gets: Iterable[Frame] = (),
) -> Case:
    codes = code if isinstance(code, tuple) else (code,)
    return Case(name, tuple(sends), tuple(gets), codes)


def beat(length: int = len(HEARTBEAT)) -> bytes:
    """A heartbeat with so many bytes: JSON may end in spaces."""
    return HEARTBEAT.ljust(length)


def push(payload: bytes) -> bytes:
    return b'["1","2","room:rfc","say",%b]' % payload


def said(payload: bytes) -> tuple[Frame, Frame]:
    """The reply to a push, and what everybody in the room gets of it."""
    return PUSHED, Frame(TEXT, b'[null,null,"room:rfc","say",%b]' % payload)


def binary_push(length: int) -> bytes:
    """A binary push with so many bytes."""
    head = bytes((0, 1, 1, 8, 3)) + b"12room:rfcraw"
    return head + bytes(index % 256 for index in range(length - len(head)))


def binary_said(length: int) -> tuple[Frame, Frame]:
    payload = binary_push(length)[18:]
    return PUSHED, Frame(BINARY, bytes((2, 8, 3)) + b"room:rfcraw" + payload)


def chopped(data: bytes, size: int = 1) -> list[bytes]:
    """Writes of so many bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def word(text: bytes) -> bytes:
    """A payload with bytes in a JSON string, whether they are UTF-8 or not."""
    return b'{"word":"%b"}' % text


# 5.2, 5.6: data frames. Autobahn 1.
FRAMING = [
    stays("empty text", [frame(TEXT)]),
    stays("empty binary", [frame(BINARY)]),
    *(
        stays(f"text of {length} bytes", [frame(TEXT, beat(length))], [BEATEN])
        for length in (100, 125, 126, 127, 128, 0xFFFF, 0x10000)
    ),
    *(
        stays(
            f"binary of {length} bytes", [frame(BINARY, binary_push(length))], binary_said(length)
        )
        for length in (100, 125, 126, 127, 128, 0xFFFF, 0x10000)
    ),
    stays("text, byte by byte", chopped(frame(TEXT, beat(130))), [BEATEN]),
    stays("binary, byte by byte", chopped(frame(BINARY, binary_push(130))), binary_said(130)),
    stays("long text in pieces", chopped(frame(TEXT, beat(LIMIT)), 997), [BEATEN]),
    stays(
        "long binary in pieces", chopped(frame(BINARY, binary_push(LIMIT)), 997), binary_said(LIMIT)
    ),
    stays("several frames in one write", [frame(TEXT, beat()) * 3], [BEATEN] * 3),
    stays(
        "a frame that ends in the next write",
        [frame(TEXT, beat())[:9], frame(TEXT, beat())[9:] + frame(PING, b"behind")],
        [BEATEN, Frame(PONG, b"behind")],
    ),
    stays("bytes that are no UTF-8, as binary", [frame(BINARY, b"\x01\xff\xfe\xc0")]),
]

# 5.2: forms of a length. The client MUST use the shortest, the server is not told to check it (10.7: it
# MAY drop what it takes for unsafe); like the servers of the field this one takes a length for what it says.
LENGTHS = [
    stays("16 bits for 100", [frame(TEXT, beat(100), form=16)], [BEATEN]),
    stays("16 bits for 125", [frame(TEXT, beat(125), form=16)], [BEATEN]),
    stays("16 bits for none", [frame(BINARY, form=16)]),
    stays("64 bits for 100", [frame(TEXT, beat(100), form=64)], [BEATEN]),
    stays("64 bits for 126", [frame(TEXT, beat(126), form=64)], [BEATEN]),
    stays("64 bits for 65535", [frame(TEXT, beat(0xFFFF), form=64)], [BEATEN]),
    stays("64 bits for none", [frame(BINARY, form=64)]),
    stays("64 bits, byte by byte", chopped(frame(TEXT, beat(126), form=64)), [BEATEN]),
    ends("text one byte above the limit", 1009, [frame(TEXT, beat(LIMIT + 1))]),
    ends("binary one byte above the limit", 1009, [frame(BINARY, binary_push(LIMIT + 1))]),
    ends("16 MiB, of which only the length comes", 1009, [frame(TEXT, claims=1 << 24)]),
    ends("2^62 bytes, of which only the length comes", 1009, [frame(BINARY, claims=1 << 62)]),
    # the most significant bit MUST be 0, and it is too long in any reading
    ends("a 64-bit length with its highest bit set", (1002, 1009), [frame(TEXT, claims=1 << 63)]),
    ends("a 64-bit length of ones", (1002, 1009), [frame(TEXT, claims=(1 << 64) - 1)]),
    stays(
        "a message of the limit, in parts", message(TEXT, chopped(beat(LIMIT), 0x4000)), [BEATEN]
    ),
    ends(
        "a message above the limit, in parts", 1009, message(TEXT, chopped(beat(LIMIT + 1), 0x4000))
    ),
    ends(
        "a message above the limit by a part that is announced",
        1009,
        [frame(TEXT, beat(LIMIT), fin=False), frame(CONTINUATION, fin=False, claims=LIMIT)],
    ),
    stays(
        "as much as the limit again, in a message of its own",
        [frame(TEXT, beat(LIMIT)), frame(TEXT, beat(LIMIT))],
        [BEATEN] * 2,
    ),
    stays(
        "pings that do not count towards the message",
        [
            frame(TEXT, beat(LIMIT)[:-1], fin=False),
            frame(PING, b"p" * 125),
            frame(CONTINUATION, b" "),
        ],
        [Frame(PONG, b"p" * 125), BEATEN],
    ),
]

# 5.5.2, 5.5.3: pings and pongs. Autobahn 2.
PINGS = [
    stays("an empty ping", [frame(PING)], [Frame(PONG)]),
    stays("a ping with text", [frame(PING, b"Hello")], [Frame(PONG, b"Hello")]),
    stays(
        "a ping with bytes", [frame(PING, b"\x00\xff\xfe\x80")], [Frame(PONG, b"\x00\xff\xfe\x80")]
    ),
    stays("a ping of 125 bytes", [frame(PING, b"p" * 125)], [Frame(PONG, b"p" * 125)]),
    stays(
        "a ping of 125 bytes, byte by byte",
        chopped(frame(PING, b"p" * 125)),
        [Frame(PONG, b"p" * 125)],
    ),
    ends("a ping of 126 bytes", 1002, [frame(PING, b"p" * 126)]),
    ends("a ping of 126 bytes, byte by byte", 1002, chopped(frame(PING, b"p" * 126))),
    ends("a ping of 65535 bytes", 1002, [frame(PING, b"p" * 0xFFFF)]),
    ends("a ping of 65536 bytes", 1002, [frame(PING, b"p" * 0x10000)]),
    ends("a pong of 126 bytes", 1002, [frame(PONG, b"p" * 126)]),
    stays("an empty pong nobody asked for", [frame(PONG)]),
    stays("a pong nobody asked for", [frame(PONG, b"Hello")]),
    stays("a pong, then a ping", [frame(PONG, b"one"), frame(PING, b"two")], [Frame(PONG, b"two")]),
    stays(
        "ten pings",
        [frame(PING, b"%d" % index) for index in range(10)],
        [Frame(PONG, b"%d" % index) for index in range(10)],
    ),
    stays(
        "ten pings in one write, byte by byte",
        chopped(b"".join(frame(PING, b"%d" % index) for index in range(10))),
        [Frame(PONG, b"%d" % index) for index in range(10)],
    ),
    stays(
        "a ping between two messages",
        [frame(TEXT, beat()) + frame(PING, b"mid") + frame(TEXT, beat())],
        [BEATEN, Frame(PONG, b"mid"), BEATEN],
    ),
]

# 5.2: bits that no extension gave a meaning. Autobahn 3.
RESERVED_BITS = [
    *(
        ends(f"text with reserved bits {rsv:03b}", 1002, [frame(TEXT, beat(), rsv=rsv)])
        for rsv in range(1, 8)
    ),
    *(
        ends(f"{name} with reserved bit {rsv:03b}", 1002, [frame(opcode, data, rsv=rsv)])
        for rsv, opcode, name, data in (
            (4, BINARY, "binary", binary_push(40)),
            (1, PING, "a ping", b"Hello"),
            (2, PONG, "a pong", b"Hello"),
            (4, CLOSE, "a close", struct.pack("!H", 1000)),
            (7, CLOSE, "an empty close", b""),
        )
    ),
    ends("empty text with reserved bit 100", 1002, [frame(TEXT, rsv=4)]),
    ends("reserved bits, byte by byte", 1002, chopped(frame(TEXT, beat(), rsv=3))),
    ends(
        "a good message, then reserved bits, then a ping",
        1002,
        [frame(TEXT, beat()) + frame(TEXT, beat(), rsv=2) + frame(PING)],
        [BEATEN],
    ),
    ends(
        "reserved bit 100 in a continuation",
        1002,
        [frame(TEXT, beat()[:9], fin=False), frame(CONTINUATION, beat()[9:], rsv=4)],
    ),
]

# 5.2, 11.8: opcodes without a meaning. Autobahn 4.
OPCODES = [
    *(ends(f"opcode {code}", 1002, [frame(code)]) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *(
        ends(f"opcode {code} with a payload", 1002, [frame(code, b"data")])
        for code in (3, 7, 11, 15)
    ),
    *(
        ends(
            f"a good message, then opcode {code}, then a ping",
            1002,
            [frame(TEXT, beat()) + frame(code, b"data") + frame(PING)],
            [BEATEN],
        )
        for code in (5, 13)
    ),
    ends("opcode 3 amid a message", 1002, [frame(TEXT, beat(), fin=False), frame(3)]),
    ends("opcode 11, not final", 1002, [frame(11, fin=False)]),
]

# 5.4: fragmentation. Autobahn 5.
FRAGMENTS = [
    stays("text in two", message(TEXT, [beat()[:9], beat()[9:]]), [BEATEN]),
    stays("text in two, one write", [b"".join(message(TEXT, [beat()[:9], beat()[9:]]))], [BEATEN]),
    stays("text byte by byte", message(TEXT, chopped(beat())), [BEATEN]),
    stays("text in a thousand", message(TEXT, chopped(beat(1000))), [BEATEN]),
    stays(
        "text in two, each write a byte",
        chopped(b"".join(message(TEXT, [beat()[:9], beat()[9:]]))),
        [BEATEN],
    ),
    stays("binary in three", message(BINARY, chopped(binary_push(120), 40)), binary_said(120)),
    stays("text with an empty first part", message(TEXT, [b"", beat()]), [BEATEN]),
    stays("text with an empty last part", message(TEXT, [beat(), b""]), [BEATEN]),
    stays(
        "text with empty parts within", message(TEXT, [beat()[:9], b"", b"", beat()[9:]]), [BEATEN]
    ),
    stays("text of empty parts", message(TEXT, [b"", b"", b""])),
    stays(
        "a ping between the parts",
        [frame(TEXT, beat()[:9], fin=False), frame(PING, b"mid"), frame(CONTINUATION, beat()[9:])],
        [Frame(PONG, b"mid"), BEATEN],
    ),
    stays(
        "a ping behind every part",
        [part + frame(PING, b"mid") for part in message(TEXT, chopped(beat(), 10))],
        [*[Frame(PONG, b"mid")] * 3, BEATEN, Frame(PONG, b"mid")],
    ),
    stays(
        "a pong between the parts",
        [frame(TEXT, beat()[:9], fin=False), frame(PONG, b"mid"), frame(CONTINUATION, beat()[9:])],
        [BEATEN],
    ),
    stays(
        "two messages in parts, one after the other",
        [*message(TEXT, [beat()[:9], beat()[9:]]), *message(BINARY, chopped(binary_push(80), 40))],
        [BEATEN, *binary_said(80)],
    ),
    ends("a ping that is not final", 1002, [frame(PING, b"p", fin=False)]),
    ends("a pong that is not final", 1002, [frame(PONG, b"p", fin=False)]),
    ends("a close that is not final", 1002, [frame(CLOSE, struct.pack("!H", 1000), fin=False)]),
    ends(
        "a ping in two amid a message",
        1002,
        [frame(TEXT, beat()[:9], fin=False), *message(PING, [b"p", b"p"])],
    ),
    ends("a continuation of nothing", 1002, [frame(CONTINUATION, beat())]),
    ends("an empty continuation of nothing", 1002, [frame(CONTINUATION)]),
    ends("a continuation of nothing, not final", 1002, [frame(CONTINUATION, beat(), fin=False)]),
    ends(
        "a continuation of a whole message",
        1002,
        [frame(TEXT, beat()), frame(CONTINUATION, beat())],
        [BEATEN],
    ),
    ends(
        "a continuation of a message that is complete",
        1002,
        [*message(TEXT, [beat()[:9], beat()[9:]]), frame(CONTINUATION)],
        [BEATEN],
    ),
    ends("text amid text", 1002, [frame(TEXT, beat()[:9], fin=False), frame(TEXT, beat())]),
    ends(
        "binary amid text",
        1002,
        [frame(TEXT, beat()[:9], fin=False), frame(BINARY, binary_push(40))],
    ),
    ends("text amid binary", 1002, [frame(BINARY, b"\x00", fin=False), frame(TEXT, beat())]),
    ends("text amid text, neither final", 1002, [frame(TEXT, b"[", fin=False)] * 2),
]

CHARACTERS = {
    "a Greek word": "κόσμε",
    "U+0080": "\u0080",
    "U+07FF": "\u07ff",
    "U+0800": "\u0800",
    "U+D7FF": "\ud7ff",
    "U+E000": "\ue000",
    "U+FFFD": "\ufffd",
    "U+FEFF": "\ufeff",
    "U+FFFE, no character": "\ufffe",
    "U+FFFF, no character": "\uffff",
    "U+FDD0, no character": "\ufdd0",
    "U+10000": "\U00010000",
    "U+1FFFE, no character": "\U0001fffe",
    "U+10FFFF": "\U0010ffff",
}

NOT_UTF8 = {
    "a lone 80": "80",
    "a lone BF": "bf",
    "continuations alone": "8081bebf",
    "C3, then a space": "c320",
    "E0, then a space": "e020",
    "F0, then a space": "f020",
    "two of three bytes": "e282",
    "three of four bytes": "f09f98",
    "FE": "fe",
    "FF": "ff",
    "a slash in two": "c0af",
    "a slash in three": "e080af",
    "a slash in four": "f08080af",
    "a slash in five": "f8808080af",
    "a slash in six": "fc80808080af",
    "U+007F in two": "c1bf",
    "U+07FF in three": "e09fbf",
    "U+FFFF in four": "f08fbfbf",
    "NUL in two": "c080",
    "U+D800": "eda080",
    "U+DFFF": "edbfbf",
    "a pair of surrogates": "eda081edb080",
    "U+110000": "f4908080",
    "F5": "f5808080",
    "five bytes": "f888808080",
    "six bytes": "fc8480808080",
}

SPLIT = "aé€😀z".encode()
"""Characters of one to four bytes."""

# 5.6, 8.1: text is UTF-8, checked where its message ends. Autobahn 6.
UTF8 = [
    *(
        stays(name, [frame(TEXT, push(word(text.encode())))], said(word(text.encode())))
        for name, text in CHARACTERS.items()
    ),
    *(
        stays(
            f"text split behind byte {at}",
            message(TEXT, [push(word(SPLIT))[: 34 + at], push(word(SPLIT))[34 + at :]]),
            said(word(SPLIT)),
        )
        for at in range(1, len(SPLIT))
    ),
    stays(
        "every byte in a part of its own",
        message(TEXT, chopped(push(word(SPLIT)))),
        said(word(SPLIT)),
    ),
    stays(
        "every byte in a write of its own",
        chopped(frame(TEXT, push(word(SPLIT)))),
        said(word(SPLIT)),
    ),
    stays(
        "a ping within a character",
        [
            frame(TEXT, push(word("€".encode()))[:-4], fin=False),
            frame(PING, b"mid"),
            frame(CONTINUATION, push(word("€".encode()))[-4:]),
        ],
        [Frame(PONG, b"mid"), *said(word("€".encode()))],
    ),
    *(
        ends(f"{name}, in a JSON string", 1007, [frame(TEXT, push(word(bytes.fromhex(text))))])
        for name, text in NOT_UTF8.items()
    ),
    *(
        ends(f"{name}, alone", 1007, [frame(TEXT, bytes.fromhex(text))])
        for name, text in NOT_UTF8.items()
        if name in {"a lone 80", "FF", "two of three bytes", "a slash in two", "U+D800"}
    ),
    ends("a key that is not UTF-8", 1007, [frame(TEXT, push(b'{"\xff":1}'))]),
    ends("a topic that is not UTF-8", 1007, [frame(TEXT, b'["1","2","room:\xff","say",{}]')]),
    ends("bytes behind the JSON that are not UTF-8", 1007, [frame(TEXT, beat() + b" \xc3")]),
    ends(
        "a heartbeat's payload that is not UTF-8",
        1007,
        [frame(TEXT, beat()[:-2] + b'"\xed\xa0\x80"}]')],
    ),
    ends("not UTF-8 in the second part", 1007, message(TEXT, [b"[", b"\xff", b"]"])),
    ends("a character cut off by the end", 1007, message(TEXT, [b"[\xe2\x82", b""])),
    ends("a character cut off by another one", 1007, message(TEXT, [b"[\xe2\x82", "é]".encode()])),
    ends(
        "halves of a character in two messages",
        1007,
        [frame(TEXT, b"\xe2\x82"), frame(TEXT, b"\xac")],
    ),
    ends(
        "a surrogate in two parts",
        1007,
        message(TEXT, [push(word(b"\xed\xa0\x80"))[:-4], push(word(b"\xed\xa0\x80"))[-4:]]),
    ),
    ends("not UTF-8, byte by byte", 1007, chopped(frame(TEXT, push(word(b"\xf4\x90\x80\x80"))))),
    ends(
        "a good message, then none of UTF-8, then a ping",
        1007,
        [frame(TEXT, beat()) + frame(TEXT, b"\xff") + frame(PING)],
        [BEATEN],
    ),
]

GOOD_CODES = (
    1000,
    1001,
    1002,
    1003,
    1007,
    1008,
    1009,
    1010,
    1011,
    1012,
    1013,
    1014,
    3000,
    3999,
    4000,
    4999,
)
BAD_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 0x7FFF, 65535)

# 5.5.1, 7: the closing handshake. A close frame is answered with one; "typically" with the code that came,
# so 1000 will do as well. Autobahn 7.
CLOSING = [
    ends("a close without a code", (None, 1000), [frame(CLOSE)]),
    *(ends(f"a close with {code}", (code, 1000), [close(code)]) for code in GOOD_CODES),
    *(
        ends(f"a close with {code}, which must not be sent", 1002, [close(code)])
        for code in BAD_CODES
    ),
    ends("a close with half a code", 1002, [frame(CLOSE, b"\x03")]),
    ends("a close with a reason", 1000, [close(1000, b"bye")]),
    ends("a close with a reason of 123 bytes", 1000, [close(1000, b"b" * 123)]),
    ends("a close with a reason of 124 bytes", 1002, [close(1000, b"b" * 124)]),
    ends("a close with a reason in Greek", 1000, [close(1000, "κόσμε".encode())]),
    ends("a close with a reason that is not UTF-8", 1007, [close(1000, b"\xce\xba\xed\xa0\x80")]),
    ends("a close with a reason cut within a character", 1007, [close(1000, b"\xe2\x82")]),
    ends("a close, byte by byte", 1000, chopped(close(1000, b"bye"))),
    ends("two closes", 1000, [close(1000) + close(1000)]),
    ends("text behind the close", 1000, [close(1000) + frame(TEXT, beat())]),
    ends("a ping behind the close", 1000, [close(1000) + frame(PING, b"late")]),
    ends("broken frames behind the close", 1000, [close(1000) + frame(3, rsv=7, mask=None)]),
    ends("a close behind a broken frame", 1002, [frame(3) + close(1000)]),
    ends("a message before the close", 1000, [frame(TEXT, beat()) + close(1000)], [BEATEN]),
    # a control frame MAY come amid a message (5.4); to give the message up is no error the RFC names
    ends("a close amid a message", (1000, 1002), [frame(TEXT, beat()[:9], fin=False), close(1000)]),
]

# 5.1, 5.3: a client's frames are masked, with any key; else the server MUST close.
MASKING = [
    stays("a key of zeros", [frame(TEXT, beat(), mask=bytes(4))], [BEATEN]),
    stays("a key of ones", [frame(TEXT, beat(), mask=b"\xff" * 4)], [BEATEN]),
    stays(
        "another key in every part",
        [
            frame(TEXT, beat()[:9], fin=False, mask=b"abcd"),
            frame(CONTINUATION, beat()[9:], mask=b"\x00\x80\x01\xff"),
        ],
        [BEATEN],
    ),
    *(
        stays(
            f"a ping of {length} bytes under a mask",
            [frame(PING, b"masks"[:length])],
            [Frame(PONG, b"masks"[:length])],
        )
        for length in (1, 3, 4, 5)
    ),
    stays(
        "a key that makes the payload look like frames",
        [frame(PING, b"\x81\x05Hello"[:4], mask=b"\x08\x85Hel"[:4])],
        [Frame(PONG, b"\x81\x05He")],
    ),
    ends("text without a mask", 1002, [frame(TEXT, beat(), mask=None)]),
    ends("empty text without a mask", 1002, [frame(TEXT, mask=None)]),
    ends("long text without a mask", 1002, [frame(TEXT, beat(0xFFFF), mask=None)]),
    ends("binary without a mask", 1002, [frame(BINARY, binary_push(40), mask=None)]),
    ends("a ping without a mask", 1002, [frame(PING, b"Hello", mask=None)]),
    ends("a pong without a mask", 1002, [frame(PONG, mask=None)]),
    ends("a close without a mask", 1002, [frame(CLOSE, struct.pack("!H", 1000), mask=None)]),
    ends(
        "a continuation without a mask",
        1002,
        [frame(TEXT, beat()[:9], fin=False), frame(CONTINUATION, beat()[9:], mask=None)],
    ),
    ends(
        "a good message, then one without a mask",
        1002,
        [frame(TEXT, beat()) + frame(TEXT, beat(), mask=None)],
        [BEATEN],
    ),
]

GROUPS: Final[dict[str, Sequence[Case]]] = {
    "framing": FRAMING,
    "lengths": LENGTHS,
    "pings": PINGS,
    "reserved bits": RESERVED_BITS,
    "opcodes": OPCODES,
    "fragments": FRAGMENTS,
    "utf-8": UTF8,
    "closing": CLOSING,
    "masking": MASKING,
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    rule = {"pattern": "room:*", "join": "anyone", "push": "broadcast", "echo": True}
    process = GatewayProcess(
        tmp_path_factory.mktemp("rfc6455"),
        {
            "auth": {"allow_anonymous": True},
            "limits": {"max_message_bytes": LIMIT},
            "channels": [rule],
        },
    )
    process.start()
    yield process
    process.kill()


@pytest.fixture
def socket(gateway: GatewayProcess) -> Iterator[RawSocket]:
    """A socket in the room."""
    opened = RawSocket.connect(gateway.public_port, PATH)
    opened.send(frame(TEXT, b'["1","1","room:rfc","phx_join",{}]'))
    assert opened.receive() == Frame(TEXT, b'["1","1","room:rfc","phx_reply",%b]' % OK)
    yield opened
    opened.abandon()


def until_the_end(socket: RawSocket) -> list[Frame]:
    """All frames that come before the TCP connection ends.

    Where the server fails the connection it is answered, as a client must (5.5.1), which ends its side
    besides: the answer may stand within a frame that was never completed. Else the server has to end
    the TCP connection by itself (7.1.1).
    """
    frames = []
    while isinstance(received := socket.receive(), Frame):
        frames.append(received)
        if received.opcode == CLOSE and code_of(received) in FAILURES:
            socket.send(close(1000))
            socket.end()
    return frames


def code_of(end: Frame) -> int | None:
    """The code in a close frame, whose reason is UTF-8 (5.5.1)."""
    assert end.opcode == CLOSE, end
    assert len(end.data) != 1, "half a code"
    end.data[2:].decode()
    return int.from_bytes(end.data[:2]) if end.data else None


def same(found: Sequence[Frame], wanted: Sequence[Frame]) -> None:
    """Pongs in their order; a push's reply and its broadcast may come in any."""
    assert Counter(found) == Counter(wanted)
    assert [f for f in found if f.opcode == PONG] == [f for f in wanted if f.opcode == PONG]


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=f"{group}: {c.name}") for group, cases in GROUPS.items() for c in cases],
)
def test_a_frame_gets_what_the_rfc_says(socket: RawSocket, case: Case) -> None:
    for write in case.sends:
        socket.send(write)

    if case.codes:
        *frames, end = until_the_end(socket)
        assert code_of(end) in case.codes
        same(frames, case.gets)
        return
    socket.send(LAST)
    answers = [socket.receive() for _ in (*case.gets, LASTED)]
    same([f for f in answers if isinstance(f, Frame)], [*case.gets, LASTED])
    socket.send(close(1000))
    *frames, end = until_the_end(socket)
    assert (frames, code_of(end)) == ([], 1000)


def test_there_are_enough_cases() -> None:
    names = [f"{group}: {case.name}" for group, cases in GROUPS.items() for case in cases]

    assert len(names) == len(set(names)) >= 120


# 7.1.5, 7.1.7: who goes without a close frame is sent none.
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="between two messages"),
        pytest.param(frame(TEXT, beat())[:1], id="within a header"),
        pytest.param(frame(TEXT, beat(0xFFFF))[:3], id="within a length"),
        pytest.param(frame(TEXT, beat())[:4], id="within a masking key"),
        pytest.param(frame(TEXT, beat())[:20], id="within a payload"),
        pytest.param(frame(TEXT, beat()[:9], fin=False), id="within a message in parts"),
    ],
)
def test_an_end_of_tcp_is_answered_with_one(socket: RawSocket, sent: bytes) -> None:
    socket.send(sent)
    socket.end()

    assert isinstance(socket.receive(), End)


# 7.1.5: the code of a connection is the one that was sent or received first.
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(frame(3), "1002", id="a broken frame"),
        pytest.param(frame(TEXT, beat(), mask=None), "1002", id="no mask"),
        pytest.param(frame(TEXT, b"\xff"), "1007", id="not UTF-8"),
        pytest.param(frame(TEXT, beat(LIMIT + 1)), "1009", id="too long"),
        pytest.param(close(1000), "1000", id="a close with 1000"),
        pytest.param(close(1001), "1001", id="a close with 1001"),
        pytest.param(frame(CLOSE), "1005", id="a close without a code"),
    ],
)
async def test_a_disconnect_is_counted_by_its_code(
    gateway: GatewayProcess, socket: RawSocket, sent: bytes, code: str
) -> None:
    before = gateway.metric("disconnects_total", code=code)
    socket.send(sent)
    until_the_end(socket)

    await eventually(lambda: gateway.metric("disconnects_total", code=code) == before + 1)
