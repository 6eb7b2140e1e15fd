"""What comes over NATS and is none of a gateway's, or not what it says it is: only it is lost."""

import struct
import time
from functools import partial
from typing import Any

import nats
import pytest

from gateway.bus.envelope import Control, encode_control
from gateway.tracker.entry import Entry
from gateway.tracker.messages import Hello, encode
from tests.cluster.conftest import Cluster, MakeReader, StartCluster
from tests.cluster.reader import publish, recovered
from tests.support.client import PhoenixClient
from tests.support.tokens import token
from tests.support.waiting import eventually

CHANNELS = [
    {"pattern": "plain:*", "push": "broadcast"},
    {
        "pattern": "room:*",
        "push": "broadcast",
        "history": {"messages": 1000, "seconds": 300},
        "presence": True,
    },
]
SUBJECTS = ("gateway.topic.plain.1", "gateway.store.room.1")
TOPICS = ("plain:1", "room:1")


@pytest.fixture
def cluster(start_cluster: StartCluster) -> Cluster:
    """Two replicas."""
    return start_cluster(2, {"channels": CHANNELS})


def envelope(event: bytes, payload: bytes, kind: int = 1) -> bytes:
    return struct.pack(">BBdHI", 1, kind, time.time(), len(event), 0) + event + payload


def is_last(topic: str, frame: Any) -> bool:
    return (frame[2], frame[4]) == (topic, {"n": 2})


BAD = {
    "long binary event": envelope(b"e" * 300, b"\1", 2),
    "no object": envelope(b"n", b'1]\n[null,null,"room:1","phx_close",{}'),
    "invalid UTF-8": envelope(b"n", b'{"n":"\xff\xfe"}'),
    "event in no UTF-8": envelope(b"\xff", b"{}"),
    "half a pair": envelope(b"n", b'{"n":"\\ud83d"}'),
    "noise": b"\x01\x01" + b"\xff" * 40,
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
async def test_one_bad_message_is_all_that_is_lost(cluster: Cluster, body: bytes) -> None:
    bus = await nats.connect(cluster.nats.url)
    clients = [await PhoenixClient.connect(r.socket_url, token("42")) for r in cluster.replicas]
    for client in clients:
        for topic in TOPICS:
            await client.join(topic, {"resume": None})
    for n, data in enumerate((envelope(b"n", b'{"n":1}'), body, envelope(b"n", b'{"n":2}'))):
        for subject in SUBJECTS:
            await bus.publish(subject, data, headers={"Nats-Msg-Id": f"{subject}{n}"})
    for client in clients:
        for topic in TOPICS:
            await client.expect(partial(is_last, topic))
            assert client.events(topic, "n") == [{"n": 1}, {"n": 2}]
    again = await PhoenixClient.connect(cluster.replicas[0].socket_url, token("43"))
    reply = await again.join("room:1", {"resume": {"last": 5}})
    assert reply[4]["status"] == "ok"
    await again.expect(lambda frame: frame[4] == {"n": 2})
    assert again.events("room:1", "n") == [{"n": 1}, {"n": 2}]

    for client in (*clients, again):
        await client.heartbeat()
        await client.close()
    for replica in cluster.replicas:
        await eventually(lambda r=replica: r.metric("sessions") == 0)
        assert replica.metric("bus_dropped_total") >= 2
        lines = [e for e in replica.log_lines() if e["event"] == "envelope dropped"]
        assert {e["subject"] for e in lines} <= {"gateway.topic.plain.1", "gateway.topic.room.1"}
        assert 1 <= len(lines) <= 3
    await bus.close()


def position(sequence: int, previous: int = 0, **other: str) -> dict[str, str]:
    """Headers as JetStream gives them to what it publishes again."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    return {
        "Nats-Stream": "GATEWAY",
        "Nats-Subject": "gateway.store.room.1",
        "Nats-Sequence": str(sequence),
        "Nats-Time-Stamp": stamp,
        "Nats-Last-Sequence": str(previous),
    } | other


FORGED: dict[str, dict[str, str]] = {
    "far away": position(10**9, 1),
    "no number of a stream": position(10**30, 1),
    "before itself": position(7, 9),
    "another topic's": position(4, 1) | {"Nats-Subject": "gateway.store.room.2"},
    "of the future": position(4, 1) | {"Nats-Time-Stamp": "2999-01-01T00:00:00.000000Z"},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
async def test_a_forged_place_in_the_stream_is_refused(
    cluster: Cluster, make_reader: MakeReader, headers: dict[str, str]
) -> None:
    a, b = cluster.replicas
    here, there = make_reader(), make_reader("room:2")
    await here.go(a)
    await there.go(a)
    await publish(b, 1)
    await here.until([1])
    bus = await nats.connect(cluster.nats.url)
    await bus.publish("gateway.topic.room.1", envelope(b"n", b'{"n":99}'), headers=headers)
    await bus.close()
    await eventually(lambda: a.metric("bus_dropped_total") == 1)
    await publish(b, 2)
    await publish(b, 1, topic="room:2")
    await here.until([1, 2])
    await there.until([1])

    for reader in (here, there):
        assert (reader.errors, reader.closes, len(reader.answers)) == (0, [], 1)
        last = reader.last
        assert await reader.go(b) == recovered(last)


async def test_a_number_that_was_not_given_yet_is_found_out_for_its_topic_alone(
    cluster: Cluster, make_reader: MakeReader
) -> None:
    a, b = cluster.replicas
    here, there = make_reader(), make_reader("room:2")
    await here.go(a)
    await there.go(a)
    await publish(b, 1)
    await here.until([1])
    bus = await nats.connect(cluster.nats.url)
    headers = position(1000, 1)
    await bus.publish("gateway.topic.room.1", envelope(b"n", b'{"n":99}'), headers=headers)
    await bus.close()
    await eventually(lambda: len(here.answers) == 2, 60, "it joins again")
    assert here.answers[-1]["reason"] == "epoch_changed"
    await publish(b, 2)
    await publish(b, 1, topic="room:2")
    await here.until([1, 99, 2])
    await there.until([1])

    assert (there.errors, there.closes, len(there.answers)) == (0, [], 1)


async def test_metas_that_are_no_json_spoil_nobodys_presence(cluster: Cluster) -> None:
    """Forged as a tracker's word: one entry whose meta would break the frames of all members."""
    a, b = cluster.replicas
    client = await PhoenixClient.connect(a.socket_url, token("42"))
    await client.join("room:1")
    await client.expect(lambda frame: frame[3] == "presence_state")
    bus = await nats.connect(cluster.nats.url)
    for meta in (b'{"a":"\xff"}', b"1]", b"{ }"):
        entry = Entry("x", "x", "x", 1.0, 1.0, meta=meta)
        hello = encode(Hello("forged", 1, "p:room:1", 1, (entry,)))
        await bus.publish("gateway.topic.room.1", encode_control(Control.TRACKER, hello))
    await bus.close()
    await eventually(lambda: a.metric("bus_dropped_total") == 3)
    other = await PhoenixClient.connect(b.socket_url, token("43"))
    await other.join("room:1")
    frame = await client.expect(lambda f: f[3] == "presence_diff" and "43" in f[4]["joins"])

    assert list(frame[4]["joins"]) == ["43"]
    for each in (client, other):
        await each.close()
