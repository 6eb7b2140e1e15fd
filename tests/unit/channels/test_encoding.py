"""What a message looks like on each transport, in each version."""

import json

import pytest

from gateway.channels.encoding import Encodings
from gateway.hub.broadcast import Broadcast
from gateway.transport.framing import BINARY, TEXT, close_frame, frame
from gateway.transport.longpoll.sessions import LONGPOLL_ENCODINGS
from gateway.transport.websocket import WEBSOCKET_ENCODINGS

TEXT_MESSAGE = Broadcast("t", "e", '{"said":"grüß \\"Gott\\""}'.encode(), position=b'"@1"')
BINARY_MESSAGE = Broadcast("t", "e", b"\x00", binary=True)
TEXTS = {
    "1": '{"topic":"t","event":"e","payload":{"said":"grüß \\"Gott\\""},"ref":null}',
    "2": '[null,null,"t","e",{"said":"grüß \\"Gott\\""}]',
}


@pytest.mark.parametrize("version", ["1", "2"])
def test_text_is_a_text_frame_or_an_entry_of_an_answer(version: str) -> None:
    text = TEXTS[version].encode()

    assert WEBSOCKET_ENCODINGS[version].broadcast(TEXT_MESSAGE) == frame(TEXT, text)
    entry = LONGPOLL_ENCODINGS[version].broadcast(TEXT_MESSAGE)
    assert entry is not None
    assert json.loads(b"[%b]" % entry[:-1]) == [TEXTS[version]]
    assert entry[-1:] == b","


@pytest.mark.parametrize("encodings", [WEBSOCKET_ENCODINGS, LONGPOLL_ENCODINGS])
@pytest.mark.parametrize("version", ["1", "2"])
def test_who_asked_for_it_gets_the_position(encodings: Encodings, version: str) -> None:
    encoding = encodings[version]

    assert b"@1" in (encoding.with_positions.broadcast(TEXT_MESSAGE) or b"")
    assert b"@1" not in (encoding.broadcast(TEXT_MESSAGE) or b"")


def test_binary_data_has_a_form_in_frames_of_version_2_alone() -> None:
    assert WEBSOCKET_ENCODINGS["2"].broadcast(BINARY_MESSAGE) == frame(
        BINARY, b"\x02\x01\x01te\x00"
    )
    assert WEBSOCKET_ENCODINGS["1"].broadcast(BINARY_MESSAGE) is None
    assert LONGPOLL_ENCODINGS["2"].broadcast(BINARY_MESSAGE) is None


def test_only_frames_say_farewell() -> None:
    assert WEBSOCKET_ENCODINGS["2"].carrier.farewell(1012, "") == close_frame(1012)
    assert LONGPOLL_ENCODINGS["2"].carrier.farewell(1012, "") == b""
