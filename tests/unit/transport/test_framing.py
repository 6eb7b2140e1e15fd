"""RFC 6455 frames: those of the gateway, and what is seen of a client's before it is all there."""

import pytest

from gateway.transport.framing import (
    BINARY,
    TEXT,
    client_frame_size,
    close_frame,
    frame,
    whole_message,
)
from tests.unit.transport.shell import PING, client_frame


@pytest.mark.parametrize(
    ("length", "header"),
    [
        (0, "8100"),
        (125, "817d"),
        (126, "817e007e"),
        (65535, "817effff"),
        (65536, "817f0000000000010000"),
    ],
)
def test_the_length_has_three_forms(length: int, header: str) -> None:
    assert frame(TEXT, b"x" * length) == bytes.fromhex(header) + b"x" * length


def test_a_close_frame_carries_code_and_reason() -> None:
    assert close_frame(1012) == bytes.fromhex("880203f4")
    assert close_frame(1012, "bye") == bytes.fromhex("880503f4") + b"bye"


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_how_long_a_frame_is_stands_in_its_header(size: int, masked: bool) -> None:
    data = client_frame(TEXT, b"x" * size, masked=masked)
    header = 2 if size < 126 else 4 if size <= 65535 else 10

    for known in range(header):
        assert client_frame_size(b"before" + data[:known], 6) == 0
    assert client_frame_size(b"before" + data[:header], 6) == len(data)
    assert client_frame_size(data + b"behind", 0) == len(data)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_a_message_in_one_frame_is_unmasked(opcode: int, size: int) -> None:
    assert whole_message(client_frame(opcode, b"x" * size)) == b"x" * size


@pytest.mark.parametrize(
    "data",
    [
        client_frame(TEXT, b"x", fin=False),
        client_frame(TEXT, b"x", masked=False),
        client_frame(TEXT, b"x", reserved=4),
        client_frame(0, b"x"),
        client_frame(3, b"x"),
        client_frame(PING, b"x"),
    ],
)
def test_what_is_no_message_by_itself_or_at_fault_is_left_to_the_library(data: bytes) -> None:
    assert whole_message(data) is None
