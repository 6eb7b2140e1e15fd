"""Replicas that are played say what real ones would; and straight lines are straight."""

import re
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from bench.cluster import table
from bench.cluster.peers import Peers
from gateway.bus.envelope import Control, control_in, encode_control
from gateway.tracker.entry import PRESENCE
from gateway.tracker.messages import Ask, Beat, TrackerMessage, decode, encode
from gateway.tracker.service import TICK_SECONDS

PUBLISHED = re.compile(rb"PUB (\S+) (\d+)\r\n")


@pytest.fixture
def nats() -> Iterator[socket.socket]:
    """Where a nats-server would listen."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def said(wire: socket.socket) -> list[tuple[str, TrackerMessage]]:
    """What was published, by subject."""
    wire.setblocking(False)
    data = b""
    while True:
        try:
            data += wire.recv(1 << 20)
        except BlockingIOError:
            break
    found = []
    for match in PUBLISHED.finditer(data):
        control = control_in(data[match.end() : match.end() + int(match[2])])
        assert control is not None
        assert control[0] is Control.TRACKER
        found.append((match[1].decode(), decode(control[1])))
    return found


def test_what_peers_say_can_be_read_and_they_answer_what_they_are_asked(
    nats: socket.socket,
) -> None:
    peers = Peers(f"nats://127.0.0.1:{nats.getsockname()[1]}")
    wire, _ = nats.accept()
    peers.meet(3)
    peers.share(["room:1"], 2)
    body = encode_control(Control.TRACKER, encode(Ask("real", 1, f"{PRESENCE}room:1")))
    wire.sendall(b"PING\r\nMSG gateway.replica.peer-1 1 %d\r\n%b\r\n" % (len(body), body))
    peers.spend(TICK_SECONDS + 0.1, digests=100, strangers=100, restarts=25)
    peers.spend(0.05)
    messages = said(wire)
    peers.close()
    wire.close()

    kinds = Counter(type(message).__name__ for _, message in messages)
    assert kinds.keys() == {"Beat", "Hello", "Digest", "Delta", "Farewell", "State"}
    beats = [message for _, message in messages if isinstance(message, Beat)]
    assert {beat.replica for beat in beats} == {"peer-0", "peer-1", "peer-2"}
    [(to, state)] = [each for each in messages if type(each[1]).__name__ == "State"]
    assert (to, state.replica) == ("gateway.replica.real", "peer-1")
    strangers = {to for to, message in messages if type(message).__name__ == "Delta"}
    assert all(to.startswith("gateway.topic.room.strangers-") for to in strangers)


def test_large_clusters_are_on_the_line_through_what_was_measured() -> None:
    line = table._line({2: {"x": 9.0}, 4: {"x": 6.0}, 8: {"x": 14.0}}, "x")
    flat = table._line({2: {"x": 0.0}, 3: {"x": 3.0}}, "x")

    assert [line(size) for size in (2, 8, 100, 1000)] == [2, 14, 198, 1998]
    assert flat(1000) == 3
    assert table._digests(1000) == pytest.approx(10_000 * 48.8 / 50 * 47.8 / 60, rel=0.01)
