"""Messages as Server-Sent Events, and ids of which each reader has its own."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.messages import NULL, Outgoing, encode_json
from gateway.protocol.sse import EventStreamSerializer, complete, digest, notice, places_of

ONE = EventStreamSerializer(presence=False, several=False)
SEVERAL = EventStreamSerializer(presence=False, several=True)
ASKED = EventStreamSerializer(presence=True, several=False)

POSITIONS = st.builds(
    lambda epoch, offset, time: f"@{epoch}.{offset:x}.{time:x}",
    st.sampled_from(["-", "e1", "another-epoch"]),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**48 - 1),
)


def parsed(data: bytes) -> list[dict[str, str]]:
    """The events in a stream, field by field (WHATWG HTML, section 9.2.6)."""
    blocks = data.decode().split("\n\n")
    assert blocks.pop() == ""
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def test_a_message_is_an_event_whose_data_is_one_line() -> None:
    data = ONE.broadcast("room:42", "said", b'{"text":"hi",\r\n\n"n":1}')

    assert data == (
        b'event: said\ndata: {"topic":"room:42","event":"said","payload":{"text":"hi",   "n":1}}\n\n'
    )


def test_its_position_is_the_id() -> None:
    assert parsed(ONE.broadcast("t", "said", b"{}", b'"@e.1.2"'))[0]["id"] == "@e.1.2"
    assert ONE.broadcast("t", "position", b"{}", b'"@e.1.2"') == b"id: @e.1.2\n\n"


@given(st.text())
def test_no_name_of_an_event_breaks_out_of_its_line(event: str) -> None:
    if event in ("position", "presence_diff", "presence_state", "presence_count"):
        return
    text = event.encode("utf-8", "replace").decode()
    data = ONE.broadcast("t", text, b"{}")

    assert data.count(b"\n") == 3
    assert b"\r" not in data
    assert b"\0" not in data
    assert json.loads(data.split(b"\ndata: ")[1])["event"] == text


def test_presence_is_told_to_those_who_asked() -> None:
    state = Outgoing(NULL, NULL, b'"t"', b'"presence_state"', b'{"42":{}}')

    assert ONE.broadcast("t", "presence_diff", b"{}") == b""
    assert ONE.encode(state) == b""
    assert parsed(ASKED.broadcast("t", "presence_diff", b"{}"))[0]["event"] == "presence_diff"
    assert json.loads(parsed(ASKED.encode(state))[0]["data"])["payload"] == {"42": {}}


def test_binary_data_has_no_form() -> None:
    assert ONE.broadcast_binary("t", "said", b"\0") is None


def test_what_the_gateway_says_is_no_message_of_anybody() -> None:
    assert notice("gap", b'{"topic":\n"t"}') == b'event: gap\ndata: {"topic": "t"}\n\n'


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), POSITIONS, st.integers(1, 3)), min_size=1, max_size=30
    )
)
def test_an_id_says_where_its_reader_stands_in_each_topic(
    sent: list[tuple[str, str, int]],
) -> None:
    places: dict[bytes, bytes] = {}
    stands: dict[str, str] = {}
    for topic, position, repeated in sent:
        shared = b"".join(
            SEVERAL.broadcast(topic, "said", b'{"n":%d}' % n, encode_json(position))
            for n in range(repeated)
        )
        stands[topic] = position
        for event in parsed(complete(shared, places)):
            entries = places_of(event["id"])
            assert entries == {digest(each).decode(): at for each, at in stands.items()}


def test_an_event_within_several_has_its_own_position() -> None:
    places: dict[bytes, bytes] = {}
    complete(SEVERAL.broadcast("b", "position", b"", b'"@e.9.9"'), places)
    both = SEVERAL.broadcast("a", "said", b"{}", b'"@e.1.1"')
    both += SEVERAL.broadcast("a", "said", b"{}", b'"@e.2.2"')

    first, second = (places_of(event["id"]) for event in parsed(complete(both, places)))
    a, b = digest("a").decode(), digest("b").decode()
    assert first == {a: "@e.1.1", b: "@e.9.9"}
    assert second == {a: "@e.2.2", b: "@e.9.9"}


def test_a_hundred_topics_fit_a_header() -> None:
    places: dict[bytes, bytes] = {}
    position = encode_json(f"@{'e' * 24}.{2**64 - 1:x}.{2**48 - 1:x}")
    for number in range(100):
        event = complete(SEVERAL.broadcast(f"t{number}", "position", b"", position), places)

    assert len(parsed(event)[0]["id"]) < 4096


def test_what_has_no_position_has_no_id() -> None:
    places = {digest("a"): b"@e.1.1"}
    data = SEVERAL.broadcast("b", "said", b"{}")

    assert complete(data, places) == data
    assert "id" not in parsed(data)[0]


@given(st.text())
def test_any_text_may_be_sent_as_an_id(text: str) -> None:
    places_of(text)
