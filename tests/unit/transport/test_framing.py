"""RFC 6455 frames from the server's side."""

import pytest

from gateway.hub.broadcast import Broadcast
from gateway.transport.framing import BINARY, TEXT, V1_FRAMES, V2_FRAMES, close_frame, frame


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


def test_text_broadcasts_are_text_frames_in_both_versions() -> None:
    message = Broadcast("t", "e", b"{}")

    assert V2_FRAMES.broadcast(message) == frame(TEXT, b'[null,null,"t","e",{}]')
    expected = b'{"topic":"t","event":"e","payload":{},"ref":null}'
    assert V1_FRAMES.broadcast(message) == frame(TEXT, expected)


def test_binary_broadcasts_are_binary_frames_in_version_2_alone() -> None:
    message = Broadcast("t", "e", b"\x00", binary=True)

    assert V2_FRAMES.broadcast(message) == frame(BINARY, b"\x02\x01\x01te\x00")
    assert V1_FRAMES.broadcast(message) is None
