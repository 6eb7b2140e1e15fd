"""Messages between replicas: everyone gets them, in order, from the join's ok on."""

import asyncio
import itertools

from tests.cluster.conftest import StartCluster
from tests.support.api import Backend
from tests.support.client import Frame, PhoenixClient
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"


async def test_a_post_to_either_replica_reaches_clients_of_both(
    start_cluster: StartCluster,
) -> None:
    a, b = start_cluster(2).replicas
    clients = [
        await PhoenixClient.connect(r.socket_url, token(str(i))) for i, r in enumerate((a, a, b, b))
    ]
    for client in clients:
        assert (await client.join(ROOM))[4]["status"] == "ok"
    async with Backend(a) as to_a, Backend(b) as to_b:
        assert await to_a.publish(ROOM, "from", {"replica": "a"}) == 202
        assert await to_b.publish(ROOM, "from", {"replica": "b"}) == 202
    for client in clients:
        await eventually(lambda c=client: len(c.events(ROOM, "from")) == 2)

    for client in clients:
        assert sorted(e["replica"] for e in client.events(ROOM, "from")) == ["a", "b"]
        await client.close()


async def test_a_push_reaches_the_other_replica_and_its_author(start_cluster: StartCluster) -> None:
    a, b = start_cluster(2).replicas
    laptop = await PhoenixClient.connect(a.socket_url, token())
    phone = await PhoenixClient.connect(b.socket_url, token())
    await laptop.join(ROOM)
    await phone.join(ROOM)
    reply = await laptop.ask(ROOM, "message", {"body": "hello"})

    assert reply[4] == {"status": "ok", "response": {}}
    for client in (laptop, phone):
        frame = await client.expect(lambda f: f[3] == "message")
        assert frame == [None, None, ROOM, "message", {"body": "hello"}]
        await client.close()


async def test_each_replicas_messages_keep_their_order_while_fifty_publishers_race(
    start_cluster: StartCluster,
) -> None:
    publishers, each = 50, 20
    a, b = start_cluster(2).replicas
    clients = [
        await PhoenixClient.connect(r.socket_url, token(str(i))) for i, r in enumerate((a, a, b, b))
    ]
    for client in clients:
        await client.join(ROOM)
    taken: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    async with Backend(a) as to_a, Backend(b) as to_b:

        async def publish(number: int) -> None:
            name, backend = ("a", to_a) if number % 2 else ("b", to_b)
            for sequence in range(each):
                payload = {"replica": name, "publisher": number, "sequence": sequence}
                assert await backend.publish(ROOM, "race", payload) == 202
                taken[name].append((number, sequence))

        await asyncio.gather(*(publish(number) for number in range(publishers)))
    for client in clients:
        await eventually(
            lambda c=client: len(c.events(ROOM, "race")) == publishers * each, within=30
        )

    received = [client.events(ROOM, "race") for client in clients]
    for events in received:
        # what one publisher sent, one request after the other, is in that order
        for number in range(publishers):
            mine = [e["sequence"] for e in events if e["publisher"] == number]
            assert mine == list(range(each))
    for name in ("a", "b"):
        # what one replica published is in one order for everybody
        orders = [
            [(e["publisher"], e["sequence"]) for e in events if e["replica"] == name]
            for events in received
        ]
        assert all(order == orders[0] for order in orders)
        assert sorted(orders[0]) == sorted(taken[name])
    for client in clients:
        await client.close()


async def test_no_message_is_lost_right_after_a_joins_ok(start_cluster: StartCluster) -> None:
    """A thousand topics, each joined for the first time and published to the moment the ok arrives."""
    a, b = start_cluster(2).replicas
    client = await PhoenixClient.connect(a.socket_url, token())
    missed = []

    def is_first(frame: Frame) -> bool:
        return bool(frame[3] == "first")

    async with Backend(b) as backend:
        for number in range(1000):
            topic = f"room:{number}"
            await client.join(topic)
            assert await backend.publish(topic, "first", {"n": number}) == 202
            try:
                await client.expect(is_first)
            except TimeoutError:
                missed.append(number)
            await client.leave(topic)
            client.inbox.clear()
    await client.close()

    assert missed == []


async def test_a_replica_without_members_of_a_topic_does_not_subscribe_to_it(
    start_cluster: StartCluster,
) -> None:
    a, b = start_cluster(2).replicas
    client = await PhoenixClient.connect(a.socket_url, token())
    await client.join(ROOM)
    await eventually(lambda: a.metric("subscriptions") == 2, what="the room and the user's own")
    assert b.metric("subscriptions") == 0

    await client.close()

    await eventually(
        lambda: a.metric("subscriptions") == 0, what="the subscription ends a moment later"
    )


async def test_echo_off_spares_the_author_alone(start_cluster: StartCluster) -> None:
    rule = {"pattern": "room:*", "push": "broadcast", "echo": False}
    a, b = start_cluster(2, {"channels": [rule]}).replicas
    author = await PhoenixClient.connect(a.socket_url, token())
    own_phone = await PhoenixClient.connect(b.socket_url, token())
    await author.join(ROOM)
    await own_phone.join(ROOM)
    await author.ask(ROOM, "one", {})
    await own_phone.ask(ROOM, "two", {})
    await own_phone.expect(lambda f: f[3] == "one")
    await author.expect(lambda f: f[3] == "two")

    assert author.events(ROOM, "one") == []
    assert own_phone.events(ROOM, "two") == []
    for client in (author, own_phone):
        await client.close()


async def test_versions_and_kinds_of_frames_mix(start_cluster: StartCluster) -> None:
    """Version 1 gets the same messages; binary data goes to version 2 alone and is counted."""
    a, b = start_cluster(2).replicas
    new = await PhoenixClient.connect(a.socket_url, token())
    old = await PhoenixClient.connect(b.socket_url, token(), vsn="1.0.0")
    await new.join(ROOM)
    await old.join(ROOM)
    lengths = bytes((0, 1, 1, len(ROOM), 4))
    await new.send(lengths + b"1" + b"9" + ROOM.encode() + b"blob" + b"\x00\xff")
    await new.reply("9")
    await new.ask(ROOM, "text", {"n": 1})
    await old.expect(lambda f: f[3] == "text")
    await new.expect(lambda f: f[3] == "text")

    broadcast = bytes((2, len(ROOM), 4)) + ROOM.encode() + b"blob" + b"\x00\xff"
    assert [frame for frame in new.inbox if isinstance(frame, bytes)] == [broadcast]
    assert [frame for frame in old.inbox if isinstance(frame, bytes)] == []
    assert b.metric("messages_dropped_total", reason="no_binary") == 1
    for client in (new, old):
        await client.close()


async def test_odd_topics_travel_like_any_other(start_cluster: StartCluster) -> None:
    a, b = start_cluster(2, {"channels": [{"pattern": "*", "push": "broadcast"}]}).replicas
    here = await PhoenixClient.connect(a.socket_url, token())
    there = await PhoenixClient.connect(b.socket_url, token())
    topics = ["a.b", "a:*", "a:>", "ä:ö ü", "::", "", "a:%3A", "x" * 255, "tab\there", "a\u0000b"]
    for topic, client in itertools.product(topics, (here, there)):
        assert (await client.join(topic))[4]["status"] == "ok", topic
    for topic in topics:
        await here.ask(topic, "odd", {"topic": topic})
    for topic in topics:
        await eventually(lambda t=topic: there.events(t, "odd") == [{"topic": t}])
    for client in (here, there):
        await client.close()
