"""RFC 6455 frames from the server's side."""

import pytest

from gateway.transport.framing import TEXT, close_frame, frame


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
