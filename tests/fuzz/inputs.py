"""Random input of every kind: good messages, and what becomes of them by mutation.

Everything comes from one ``random.Random``: a seed plays a run again, and a million inputs take seconds.
"""

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

TOPICS = (
    "room:1",
    "kept:1",
    "shown:1",
    "count:1",
    "user:fuzz",
    "phoenix",
    "none:1",
    "",
    "room:\u00e9:%",
)
EVENTS = (
    *("phx_join", "phx_join", "phx_leave", "say", "say", "heartbeat", "presence_update"),
    *("access_token", "phx_close", "chan_reply_1", "position", "presence_diff", ""),
)
WORDS = (
    *(
        b'"',
        b"\\",
        b"\\u",
        b'"\\ud83d"',
        b"\\ud83d",
        b"\\u0000",
        b"null",
        b"{}",
        b"[]",
        b"[",
        b"{",
        b"]",
    ),
    *(
        b"}",
        b",",
        b":",
        b"1e999",
        b"-",
        b"0x",
        b"NaN",
        b"\xff",
        b"\xed\xa0\x80",
        b"\x00",
        b"\n",
        b"\r\n",
    ),
    *(
        b"9" * 400,
        b"[" * 2000,
        b'"' + b"a" * 300 + b'"',
        b"\xf0\x9f\x98\x80",
        b"true",
        b'{"a":1,"a":2}',
    ),
    *(b"resume", b"@", b"@a.1.1", b'{"last":1}', b'{"last":-1}', b"%00", b"%2F", b"..", b"{sub}"),
)
"""What parsers stumble over, and what this one knows."""

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


class Inputs:
    """Makes input.

    Args:
        chance: Where all of it comes from.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def some(self, *makers: tuple[int, Callable[[], bytes]]) -> bytes:
        """What one of them makes, each with its weight."""
        weights = [weight for weight, _ in makers]
        [(_, make)] = self.chance.choices(makers, weights)
        return make()

    def noise(self, most: int = 64) -> bytes:
        """Random bytes."""
        return self.chance.randbytes(self.chance.randrange(most + 1))

    def value(self, depth: int = 0) -> Any:
        """Any JSON."""
        chance = self.chance
        match chance.randrange(9 if depth < 3 else 6):
            case 0:
                return None
            case 1:
                return chance.choice((True, False))
            case 2:
                return chance.choice((0, -1, 1, 2**31, 2**53 + 1, 10**400, chance.randrange(1000)))
            case 3:
                return chance.choice((0.5, -0.0, 1e308, 1e-300))
            case 4 | 5:
                return self.word()
            case 6:
                return [self.value(depth + 1) for _ in range(chance.randrange(4))]
            case _:
                return {self.word(): self.value(depth + 1) for _ in range(chance.randrange(4))}

    def word(self) -> str:
        """Any text."""
        chance = self.chance
        return chance.choice(
            (
                "",
                "a",
                "room:1",
                "\ud83d",
                "\u0000",
                "x" * chance.randrange(400),
                "\U0001f600",
                "ä:ö",
                "*",
                ">",
                "a.b",
            )
        )

    def mutated(self, data: bytes) -> bytes:
        """The same, somewhat otherwise."""
        chance = self.chance
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            at = chance.randrange(len(data) + 1)
            to = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
            match chance.randrange(7):
                case 0:
                    data = data[:at] + chance.choice(WORDS) + data[at:]
                case 1:
                    data = data[:at] + data[to:]
                case 2:
                    data = data[:at] + bytes((chance.randrange(256),)) + data[at + 1 :]
                case 3:
                    data = data[:at]
                case 4:
                    data = data[:to] + data[at:]
                case 5:
                    data = data[:at] + self.noise(8) + data[to:]
                case _:
                    data = data[:at] + chance.choice(WORDS) + data[to:]
        return data

    def message(self, *, version: int = 2) -> bytes:
        """What a client says, as JSON of a protocol version."""
        chance = self.chance
        topic, event = chance.choice(TOPICS), chance.choice(EVENTS)
        join_ref, ref = (
            chance.choice(("1", "1", "1", None, "2", 7)),
            chance.choice(("5", None, 3, "x" * 300)),
        )
        payload = self.payload(event)
        if version == 1:
            fields = {"topic": topic, "event": event, "payload": payload, "ref": ref}
            return json.dumps(fields | {"join_ref": join_ref}).encode()
        return json.dumps([join_ref, ref, topic, event, payload]).encode()

    def payload(self, event: str) -> Any:
        """Of an event, mostly such as it may have."""
        chance = self.chance
        if event == "phx_join" and chance.random() < 0.7:
            position: Any = chance.choice(
                (None, "@", "@a.1.1", {"last": 3}, {"last": 0}, {"last": 10**30}, [], 1)
            )
            return chance.choice(
                ({}, {"resume": position}, {"resume": position, "x": self.value()})
            )
        if event == "access_token":
            return {
                "access_token": chance.choice(
                    ("", "a.b.c", self.value(), "eyJhbGciOiJub25lIn0.e30.")
                )
            }
        return chance.choice(({}, {"x": self.value()}, self.value()))

    def binary(self) -> bytes:
        """A binary push of version 2: kind, four lengths, and what they are of."""
        chance = self.chance
        parts = [
            chance.choice((b"1", b"", b"\xff")),
            chance.choice((b"5", b"")),
            chance.choice(TOPICS).encode(),
            chance.choice(EVENTS).encode(),
        ]
        lengths = [len(part) if chance.random() < 0.95 else chance.randrange(256) for part in parts]
        kind = 0 if chance.random() < 0.9 else chance.randrange(256)
        return bytes((kind, *lengths)) + b"".join(parts) + self.noise()

    def frame(self, version: int) -> bytes:
        """Bytes of a client: a frame of RFC 6455, or nearly one, or several."""
        chance = self.chance
        text = self.message(version=version)
        kind = chance.random()
        if kind < 0.55:
            return wrapped(TEXT, text)
        if kind < 0.7:
            return wrapped(TEXT, self.mutated(text))
        if kind < 0.78:
            return wrapped(BINARY, self.binary())
        if kind < 0.82:
            return wrapped(BINARY, self.mutated(self.binary()))
        if kind < 0.87:
            return wrapped(PING, self.noise(125))
        if kind < 0.92:
            return self._fragmented(text)
        if kind < 0.98:
            return self._odd(text)
        if kind < 0.99:
            return self.mutated(wrapped(TEXT, text))
        return self.noise(200)

    def _fragmented(self, text: bytes) -> bytes:
        """In pieces, with pings in between; at times the last is missing."""
        chance = self.chance
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(1, 6)))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        frames = []
        for number, piece in enumerate(pieces):
            last = number == len(pieces) - 1
            frames.append(wrapped(CONTINUATION if number else TEXT, piece, fin=last))
            if chance.random() < 0.2:
                frames.append(wrapped(chance.choice((PING, PONG)), self.noise(10)))
        return b"".join(frames[:-1] if chance.random() < 0.05 else frames)

    def _odd(self, text: bytes) -> bytes:
        """A frame that breaks a rule, or looks as if."""
        chance = self.chance
        match chance.randrange(7):
            case 0:
                return wrapped(chance.randrange(16), text)
            case 1:
                return wrapped(TEXT, text, reserved=chance.randrange(8))
            case 2:
                return wrapped(TEXT, text, masked=False)
            case 3:
                return wrapped(
                    CLOSE, struct.pack("!H", chance.choice((999, 1000, 1005, 3000, 4999, 5000)))
                )
            case 4:
                return wrapped(CLOSE, self.noise(125))
            case 5:
                return wrapped(
                    TEXT, text, says=chance.choice((0, 1, 2**16, 2**31, 2**63, 2**64 - 1))
                )
            case _:
                return wrapped(
                    chance.choice((PING, PONG, CLOSE)), self.noise(300), fin=chance.random() < 0.5
                )

    def batch(self) -> bytes:
        """The body of a client that polls."""
        chance = self.chance
        lines = [
            chance.choice(
                (self.message(), self.mutated(self.message()), self.noise(), b"", b" ", b"AAAA")
            )
            for _ in range(chance.randrange(12))
        ]
        body = chance.choice((b"\n", b"\n", b"\r\n")).join(lines)
        return body if chance.random() < 0.8 else self.mutated(body)

    def near(self, corpus: Sequence[bytes]) -> bytes:
        """One of these or a mutation of it, seldom noise."""
        chance = self.chance
        if chance.random() < 0.02:
            return self.noise(200)
        found = chance.choice(corpus)
        return found if chance.random() < 0.1 else self.mutated(found)


def wrapped(
    opcode: int,
    data: bytes,
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    says: int | None = None,
) -> bytes:
    """A frame (RFC 6455 section 5.2), masked with zeros.

    Args:
        says: The length it has by its own account.
    """
    length = len(data) if says is None else says
    head = bytes(((0x80 if fin else 0) | reserved << 4 | opcode,))
    mask = 0x80 if masked else 0
    if length < 126:
        head += bytes((mask | length,))
    elif length < 2**16:
        head += struct.pack("!BH", mask | 126, length)
    else:
        head += struct.pack("!BQ", mask | 127, length)
    return head + (b"\0\0\0\0" if masked else b"") + data
