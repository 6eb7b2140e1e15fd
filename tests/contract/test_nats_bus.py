"""What the bus makes of a NATS server that fails, hangs, refuses, changes or is not there."""

import asyncio
import json
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.bus import confirmation, nats, open_bus
from gateway.bus.base import Subscription
from gateway.errors import BusUnavailable, EnvelopeTooLarge, SubscriptionRefused
from tests.contract.clients import ChangingServer, Client, Counters, OpenClient, Section, bodies
from tests.support.certificate import write_certificate
from tests.support.ports import free_port
from tests.support.waiting import eventually

USERS = """
authorization {{ users = [
  {{user: plain, password: secret, permissions: {{
    subscribe: {{deny: ["t.denied.>", "t.Upper"]}}, publish: {{deny: "t.silent"}} }} }}
  {{user: {other}, password: secret}}
] }}
"""


CLUSTER = """
server_name: one
cluster { name: c, listen: "127.0.0.1:-1", routes: ["nats://127.0.0.1:1"] }
"""
"""With JetStream a cluster must have another member, even if that is never there."""


async def publish_until_told(
    client: Client, *, up: bool, seconds: float = 10.0
) -> dict[bool, set[int]]:
    """Publish numbers to ``t`` until the listener is told; which were taken and which were not."""
    numbers: dict[bool, set[int]] = {True: set(), False: set()}
    deadline = time.monotonic() + seconds
    while client.told[-1:] != [up]:
        assert time.monotonic() < deadline
        number = len(numbers[True]) + len(numbers[False])
        try:
            client.bus.publish("t", b"%d" % number)
            numbers[True].add(number)
        except BusUnavailable:
            numbers[False].add(number)
        await asyncio.sleep(0.002)
    return numbers


async def fill(client: Client, body: bytes) -> int:
    """Publish, each with its number, until the bus takes no more; returns how many it took."""
    taken = 0
    while True:
        try:
            client.bus.publish("t", b"%010d" % taken + body)
        except BusUnavailable:
            return taken
        taken += 1
        await asyncio.sleep(0)


async def unanswered(client: Client) -> asyncio.Task[Subscription]:
    """A subscribe for which a stopped server has no answer; it may live a moment after the signal."""
    while True:
        task = asyncio.create_task(client.bus.subscribe("t.late", print))
        done, _ = await asyncio.wait((task,), timeout=0.5)
        if not done:
            return task


def monitored(server: ChangingServer) -> str:
    """Switch a server's monitoring on; returns its address."""
    port = free_port()
    server.extra = f"http: 127.0.0.1:{port}"
    return f"http://127.0.0.1:{port}/connz?subs=1"


async def subjects_on(address: str) -> list[str]:
    """Subjects the server's clients listen to, without the inboxes each connection has."""

    def fetch() -> Any:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - loopback
            return json.load(answer)

    found = await asyncio.to_thread(fetch)
    return sorted(
        subject
        for connection in found["connections"]
        for subject in connection.get("subscriptions_list", [])
        if not subject.endswith(".*")
    )


async def test_a_server_that_is_not_there_at_the_start_is_found_when_it_comes(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    client = await open_nats(wait=False)
    assert not client.bus.connected
    with pytest.raises(BusUnavailable):
        client.bus.publish("t", b"")
    with pytest.raises(BusUnavailable):
        await client.bus.subscribe("t", print)
    await asyncio.sleep(0.3)
    nats_server.start()
    await client.until(up=True)
    heard: list[bytes] = []
    await client.bus.subscribe("t", bodies(heard.append))
    client.bus.publish("t", b"x")
    await eventually(lambda: heard == [b"x"])
    assert client.told == [True]
    assert client.counters.reconnects == 0


async def test_a_connection_that_sends_nothing_any_more_is_given_up(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    """nats-py goes on without the task that hands its bytes to the kernel."""
    nats_server.start()
    client = await open_nats()
    heard: list[bytes] = []
    await client.bus.subscribe("t", bodies(heard.append))
    bus: Any = client.bus
    bus._link.client._flusher_task.cancel()
    await asyncio.sleep(0)
    assert not client.bus.connected
    with pytest.raises(BusUnavailable):
        client.bus.publish("t", b"refused")

    await client.until(up=False)
    await client.until(up=True)
    client.bus.publish("t", b"x")
    await eventually(lambda: heard == [b"x"])


async def test_a_killed_server_costs_only_the_time_it_is_away(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    here, there = await open_nats(), await open_nats()
    heard: list[int] = []
    await there.bus.subscribe("t", bodies(lambda body: heard.append(int(body))))
    left = await there.bus.subscribe("t", bodies(lambda body: heard.append(-int(body))))
    nats_server.kill()
    numbers = await publish_until_told(here, up=False)
    await there.until(up=False)
    left.close()  # also without a server
    assert here.counters.up is False
    for number in range(1000, 1010):
        with pytest.raises(BusUnavailable):
            here.bus.publish("t", b"%d" % number)
    nats_server.start()
    later = await publish_until_told(here, up=True)
    await there.until(up=True)
    here.bus.publish("t", b"2000")
    await eventually(lambda: heard[-1:] == [2000])
    assert set(heard) <= numbers[True] | later[True] | {2000}
    assert here.told == there.told == [True, False, True]
    assert here.counters.reconnects == 1
    assert here.counters.up is True


@pytest.mark.slow
async def test_a_hanging_server_is_noticed_and_forgiven(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    here, there = await open_nats(), await open_nats()
    heard: list[int] = []
    await there.bus.subscribe("t", bodies(lambda body: heard.append(int(body))))
    nats_server.pause()
    late = await unanswered(there)
    taken = await publish_until_told(here, up=False, seconds=15)
    with pytest.raises(BusUnavailable):
        async with asyncio.timeout(5):
            await late
    with pytest.raises(BusUnavailable):
        here.bus.publish("t", b"100000")
    with pytest.raises(BusUnavailable):
        await here.bus.subscribe("t", print)
    nats_server.resume()
    again = await publish_until_told(here, up=True)
    await there.until(up=True)
    here.bus.publish("t", b"200000")
    await eventually(lambda: heard[-1:] == [200000])
    assert set(heard) <= taken[True] | again[True] | {200000}
    assert here.told == [True, False, True]


@pytest.mark.slow
async def test_a_hanging_server_with_a_full_connection_is_noticed_too(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    """An ordinary close would wait for the server to read what fills the connection."""
    nats_server.start()
    client = await open_nats()
    nats_server.pause()
    assert await fill(client, bytes(500_000)) * 500_000 > nats.MAX_UNSENT_BYTES
    await client.until(up=False, seconds=15)
    await eventually(lambda: client.counters.bytes_pending == 0)
    nats_server.resume()
    await client.until(up=True)


async def test_a_short_hang_loses_nothing_and_bounds_what_waits(
    nats_server: ChangingServer, open_nats: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats, "MAX_UNSENT_BYTES", 2_000_000)
    nats_server.start()
    here, there = await open_nats(), await open_nats()
    heard: list[int] = []
    await there.bus.subscribe("t", bodies(lambda body: heard.append(int(body[:10]))))
    nats_server.pause()
    taken = await fill(here, bytes(100_000))
    assert here.bus.connected
    nats_server.resume()
    await eventually(lambda: len(heard) == taken)
    assert heard == list(range(taken))
    here.bus.publish("t", b"%010d" % taken)
    await eventually(lambda: len(heard) == taken + 1)
    assert here.told == [True]


async def test_a_denied_subject_is_refused_and_no_other(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = USERS.format(other="other")
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    heard: list[bytes] = []
    outcomes = await asyncio.gather(
        client.bus.subscribe("t.one", bodies(heard.append)),
        client.bus.subscribe("t.denied.one", bodies(heard.append)),
        client.bus.subscribe("t.Upper", bodies(heard.append)),
        client.bus.subscribe("t.two", bodies(heard.append)),
        return_exceptions=True,
    )
    refused = [isinstance(outcome, SubscriptionRefused) for outcome in outcomes]
    assert refused == [False, True, True, False]
    client.bus.publish("t.one", b"1")
    client.bus.publish("t.two", b"2")
    await eventually(lambda: heard == [b"1", b"2"])
    assert client.told == [True]


async def test_a_message_the_server_refuses_is_counted(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = USERS.format(other="other")
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    client.bus.publish("t.silent", b"")
    await eventually(lambda: client.counters.lost == 1)
    assert client.bus.connected


async def test_a_user_whose_rights_end_comes_back_when_they_return(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    """The server says so in an error after which nats-py closes its client for good."""
    nats_server.extra = USERS.format(other="revoked")
    nats_server.start()
    client = await open_nats(userinfo="revoked:secret")
    heard: list[bytes] = []
    await client.bus.subscribe("t", bodies(heard.append))
    with structlog.testing.capture_logs() as logs:
        nats_server.reload(USERS.format(other="other"))
        await client.until(up=False)
        await eventually(lambda: any("Authorization" in str(entry) for entry in logs))
        nats_server.reload(USERS.format(other="revoked"))
        await client.until(up=True)
    client.bus.publish("t", b"x")
    await eventually(lambda: heard == [b"x"])
    assert "secret" not in str(logs)


async def test_a_subscription_a_new_configuration_denies_leaves_the_others_alone(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    heard: list[bytes] = []
    await client.bus.subscribe("t.denied.one", bodies(heard.append))
    await client.bus.subscribe("t.one", bodies(heard.append))
    nats_server.kill()
    nats_server.extra = USERS.format(other="other")
    nats_server.start()
    with structlog.testing.capture_logs() as logs:
        await client.until(up=False)
        await client.until(up=True)
    client.bus.publish("t.denied.one", b"0")
    client.bus.publish("t.one", b"1")
    await eventually(lambda: heard == [b"1"])
    (refused,) = [entry for entry in logs if entry["event"] == "bus server refused"]
    assert refused["words"] == 'Permissions Violation for Subscription to "t.denied.one"'


async def test_a_limit_lowered_under_way_costs_one_message_at_most(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    """A body above it makes the server close the connection, and nats-py its client for good."""
    nats_server.start()
    client = await open_nats()
    heard: list[bytes] = []
    await client.bus.subscribe("t", bodies(heard.append))
    assert client.bus.max_envelope_bytes == 1024 * 1024
    nats_server.reload("max_payload: 1000")
    while client.told == [True]:  # until the new configuration is read
        with suppress(BusUnavailable):
            client.bus.publish("t", bytes(2000))
        await asyncio.sleep(0.01)
    await eventually(lambda: client.bus.connected and client.bus.max_envelope_bytes == 1000)
    with pytest.raises(EnvelopeTooLarge):
        client.bus.publish("t", bytes(2000))
    heard.clear()
    client.bus.publish("t", bytes(1000))
    await eventually(lambda: heard == [bytes(1000)])


@pytest.mark.slow
async def test_fifteen_thousand_subscriptions_stand_again_after_a_restart(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    here, there = await open_nats(), await open_nats()
    heard: set[bytes] = set()
    names = [b"%d" % number for number in range(15_000)]
    await asyncio.gather(
        *(here.bus.subscribe(f"t.{int(name)}", bodies(heard.add)) for name in names)
    )
    nats_server.kill()
    await here.until(up=False)
    nats_server.start()
    await there.until(up=True)
    await here.until(up=True)
    for name in names:
        there.bus.publish(f"t.{int(name)}", name)
    await eventually(lambda: len(heard) == len(names))


async def test_listeners_are_told_only_after_all_is_confirmed_again(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    here, there = await open_nats(), await open_nats()
    heard: list[int] = []
    for number in range(50):
        await here.bus.subscribe(f"t.{number}", bodies(lambda body: heard.append(int(body))))
    nats_server.kill()
    await here.until(up=False)
    await there.until(up=False)
    nats_server.start()
    await there.until(up=True)
    await here.until(up=True)
    for number in range(50):
        there.bus.publish(f"t.{number}", b"%d" % number)
    await eventually(lambda: heard == list(range(50)))


async def test_a_cluster_is_one_bus_and_its_members_stand_in_for_each_other(
    nats_server: ChangingServer, open_nats: OpenClient, tmp_path: Path
) -> None:
    """The first client knows of one server only, and hears of the other from it."""
    other = ChangingServer(tmp_path / "other")
    routes = (free_port(), free_port())
    for name, server, (mine, peer) in (
        ("one", nats_server, routes),
        ("two", other, routes[::-1]),
    ):
        server.extra = f"""
server_name: {name}
cluster {{ name: c, listen: "127.0.0.1:{mine}", routes: ["nats://127.0.0.1:{peer}"] }}
"""
        server.start()
    try:
        here = await open_nats()
        there = Client(open_bus(Section(other.url), metrics=Counters(), name="test"), Counters())
        await there.bus.start()
        await there.until(up=True)
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        await here.bus.subscribe("t", bodies(heard.put_nowait))

        async def arrives(body: bytes) -> None:
            """Until the servers have found each other, nothing does."""
            async with asyncio.timeout(15):
                while heard.empty():
                    there.bus.publish("t", body)
                    await asyncio.sleep(0.05)

        await arrives(b"1")
        nats_server.kill()
        await here.until(up=False)
        await here.until(up=True)
        while not heard.empty():
            heard.get_nowait()
        await arrives(b"2")
        await there.bus.close()
    finally:
        other.kill()


async def test_a_server_that_hangs_is_not_tried_again_while_there_is_another(
    nats_server: ChangingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections all the same, and each would cost seconds."""
    monkeypatch.setattr(nats, "PING_SECONDS", 0.1)
    other = ChangingServer(tmp_path / "other")
    counters = Counters()
    try:
        nats_server.start()
        other.start()
        bus = open_bus(Section(f"{nats_server.url},{other.url}"), metrics=counters, name="test")
        client = Client(bus, counters)
        with structlog.testing.capture_logs() as logs:
            await bus.start()
            await client.until(up=True)
            for turn in range(8):
                port = [log["server"] for log in logs if log["event"] == "bus connected"][-1]
                hanging = nats_server if port.endswith(f":{nats_server.port}") else other
                hanging.pause()
                await eventually(lambda turn=turn: counters.reconnects > turn)
                hanging.resume()
        assert [log for log in logs if log["event"] == "bus unreachable"] == []
        await bus.close()
    finally:
        other.kill()


async def test_a_first_subscription_is_held_until_a_cluster_knows_of_it(
    nats_server: ChangingServer, open_nats: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "SPREAD_SECONDS", 0.2)
    nats_server.extra = CLUSTER
    nats_server.start()
    client = await open_nats()
    started = time.monotonic()
    await client.bus.subscribe("t", print)
    assert time.monotonic() - started > 0.15


async def test_a_cancelled_subscribe_is_undone_on_the_server(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    address = monitored(nats_server)
    nats_server.start()
    client = await open_nats()
    kept = await client.bus.subscribe("t.kept", print)
    for turns in range(8):
        task = asyncio.create_task(client.bus.subscribe(f"t.{turns}", print))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            task.result().close()
    await client.bus.subscribe("t.last", print)
    assert await subjects_on(address) == ["t.kept", "t.last"]
    kept.close()
    await client.bus.subscribe("t.very-last", print)
    assert await subjects_on(address) == ["t.last", "t.very-last"]


async def test_a_limit_the_server_tells_of_later_counts() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":5000,"version":"2.15.1"}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b'PONG\r\nINFO {"max_payload":1000}\r\n')
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = open_bus(Section(f"nats://127.0.0.1:{port}"), metrics=Counters(), name="test")
    await bus.start()
    await eventually(lambda: bus.max_envelope_bytes == 1000)
    with pytest.raises(EnvelopeTooLarge):
        bus.publish("t", bytes(1001))
    await bus.close()
    server.close()
    await server.wait_closed()


async def test_a_bus_that_never_met_its_server_can_be_closed() -> None:
    """A server that accepts and then says nothing is the worst of them."""
    writers: list[asyncio.StreamWriter] = []

    async def say_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    for port in (silent.sockets[0].getsockname()[1], free_port()):
        counters = Counters()
        bus = open_bus(Section(f"nats://127.0.0.1:{port}"), metrics=counters, name="test")
        await bus.start()
        await asyncio.sleep(0.1)  # into the attempt
        async with asyncio.timeout(5):
            await bus.close()
        assert not counters.up
    silent.close()
    for writer in writers:
        writer.close()
        await writer.wait_closed()


async def test_a_password_for_a_tls_address_is_never_sent_in_clear(
    nats_server: ChangingServer,
) -> None:
    nats_server.start()
    url = nats_server.login("me:secret").replace("nats:", "tls:")
    with structlog.testing.capture_logs() as logs:
        bus = open_bus(Section(url), metrics=Counters(), name="test")
        await bus.start()
        await eventually(lambda: any("SecureConn" in str(entry) for entry in logs))
        await bus.close()
    assert "secret" not in str(logs)


async def test_a_value_is_kept_for_others_and_for_later(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    here, there = await open_nats(), await open_nats()
    await here.bus.put("kept", "a_b-c=", b"1", keep_seconds=60)
    await here.bus.put("kept", "a_b-c=", b"2", keep_seconds=60)
    assert await there.bus.get("kept", "a_b-c=") == b"2"
    assert await there.bus.get("kept", "other") is None

    nats_server.kill()
    await there.until(up=False)
    with pytest.raises(BusUnavailable):
        await there.bus.get("kept", "a_b-c=")
    with pytest.raises(BusUnavailable):
        await there.bus.put("kept", "a_b-c=", b"3", keep_seconds=60)
    nats_server.start()
    await there.until(up=True)
    assert await there.bus.get("kept", "a_b-c=") == b"2"


async def test_values_need_no_inbox_outside_the_prefix(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = """authorization { users = [{user: plain, password: secret, permissions: {
    publish: ["t.>", "$JS.API.>", "$KV.kept.>"], subscribe: ["t.>"] }}] }"""
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    await client.bus.put("kept", "a", b"1", keep_seconds=60)
    assert await client.bus.get("kept", "a") == b"1"
    assert await client.bus.entries("kept") == {"a": b"1"}
    assert client.bus.connected


ALL_BUT = """
authorization {{ users = [{{user: plain, password: secret, permissions: {{
  subscribe: {{allow: ["t.>", "$JS.>"], deny: [{hear}]}}
  publish: {{allow: ["t.>", "$JS.>"], deny: [{say}]}} }} }}] }}
"""
"""One user, who may do everything but what is denied."""


def denying(*, hear: str = "", say: str = "") -> str:
    """Permissions that deny subjects, each in quotes."""
    return ALL_BUT.format(hear=hear, say=say)


def doubt(client: Client) -> str | None:
    """What readiness would say."""
    return client.bus.doubt


async def test_what_was_denied_once_is_refused_until_the_right_is_back(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = denying(say='"t.topic.Silent"')
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    heard: list[bytes] = []
    await client.bus.subscribe("t.topic.silent", bodies(heard.append))
    client.bus.publish("t.topic.Silent", b"lost")

    async def refused() -> bool:
        try:
            client.bus.publish("t.topic.Silent", b"refused")
        except BusUnavailable as problem:
            return str(problem) == 'Permissions Violation for Publish to "t.topic.Silent"'
        return False

    await eventually(refused)
    client.bus.publish("t.topic.silent", b"x")  # another subject
    await eventually(lambda: heard == [b"x"])
    assert doubt(client) is None, "one topic is no reason to send all clients elsewhere"
    dropped = client.counters.lost
    assert dropped
    nats_server.reload(denying())
    await client.bus.subscribe("t.topic.Silent", bodies(heard.append))

    async def taken() -> bool:
        return not await refused()

    await eventually(taken)
    await eventually(lambda: b"refused" in heard)
    assert b"lost" not in heard
    assert client.counters.lost == dropped, "a trial is no lost message"
    assert client.counters.value("bus_refusals_total", kind="publish_denied") >= dropped


async def test_a_subscription_taken_away_is_made_again_when_the_right_is_back(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = denying()
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    heard: list[bytes] = []
    one = await client.bus.subscribe("t.topic.one", bodies(heard.append))
    other = await client.bus.subscribe("t.topic.two", bodies(heard.append))
    more = [await client.bus.subscribe(f"t.topic.three.{n}", print) for n in range(3)]
    with structlog.testing.capture_logs() as logs:
        nats_server.reload(denying(hear='"t.topic.one", "t.topic.two"'))
        await eventually(lambda: bool(one.refusal and other.refusal))
        # of two refusals of a kind within a moment one is logged, whichever the server names first
        assert any('Violation for Subscription to "t.topic.' in str(entry) for entry in logs)
    assert client.bus.connected
    assert doubt(client) is None
    with pytest.raises(SubscriptionRefused, match=r"t\.topic\.one"):
        await client.bus.subscribe("t.topic.one", print)
    for each in more[1:]:
        each.close()
    assert doubt(client) == "bus_subscription_denied", "most topics are not heard"
    other.close()
    client.bus.publish("t.topic.one", b"0")
    nats_server.reload(denying())
    await eventually(lambda: not one.refusal)
    client.bus.publish("t.topic.one", b"1")
    client.bus.publish("t.topic.two", b"2")
    await eventually(lambda: heard == [b"1"])
    assert client.told == [True, False, True], "what was published meanwhile was not heard"
    assert doubt(client) is None
    assert client.counters.reconnects == 0


@pytest.mark.parametrize("subject", ["t.replicas", "t.replica.a", "t.inbox.>", "t.unheard.>"])
async def test_a_replica_that_may_not_hear_the_others_is_off_the_bus_until_it_may(
    nats_server: ChangingServer, open_nats: OpenClient, subject: str
) -> None:
    nats_server.extra = denying()
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    heard: list[bytes] = []
    for each in ("t.replicas", "t.replica.a"):
        await client.bus.subscribe(each, bodies(heard.append))
    assert doubt(client) is None
    nats_server.reload(denying(hear=f'"{subject}"'))
    await client.until(up=False)
    assert doubt(client) == "bus_subscription_denied"
    with pytest.raises(BusUnavailable, match="Permissions Violation for Subscription"):
        client.bus.publish("t.topic.a", b"")
    nats_server.reload(denying())
    await client.until(up=True)
    client.bus.publish("t.replicas", b"1")
    client.bus.publish("t.replica.a", b"2")
    await eventually(lambda: heard == [b"1", b"2"])
    unheard = asyncio.get_running_loop().create_future()
    client.bus.publish("t.nobody", b"", no_responders=unheard)
    await asyncio.wait_for(unheard, 10)
    assert await client.bus.entries("kept") == {}
    assert client.counters.reconnects == 0


async def test_a_flush_does_not_wait_for_a_server_that_hangs(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    client = await open_nats()
    nats_server.pause()
    unheard = asyncio.get_running_loop().create_future()
    client.bus.publish("t.nobody", b"", no_responders=unheard)
    await client.bus.flush()
    assert not unheard.done()
    nats_server.resume()
    await asyncio.wait_for(unheard, 10)


async def test_a_replica_that_never_might_hear_the_others_says_so(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = denying(hear='"t.replicas"')
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    with pytest.raises(SubscriptionRefused):
        await client.bus.subscribe("t.replicas", print)
    assert doubt(client) == "bus_subscription_denied"
    nats_server.reload(denying())

    async def heard() -> bool:
        with suppress(SubscriptionRefused):
            await client.bus.subscribe("t.replicas", print)
        return doubt(client) is None

    await eventually(heard)


async def test_a_replica_the_others_cannot_hear_says_so(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = denying(say='"t.replicas"')
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    client.bus.publish("t.replicas", b"")
    await eventually(lambda: doubt(client) == "bus_publish_denied")


async def test_a_limit_of_subscriptions_refuses_the_last_ones_and_no_connection(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = "max_subscriptions: 5"
    nats_server.start()
    client = await open_nats()
    outcomes = await asyncio.gather(
        *(client.bus.subscribe(f"t.topic.{number}", print) for number in range(5)),
        return_exceptions=True,
    )
    refused = [isinstance(outcome, SubscriptionRefused) for outcome in outcomes]
    assert refused == [False, False, False, True, True]
    assert client.told == [True]
    assert client.counters.value("bus_refusals_total", kind="limit") == 2


async def test_a_refused_login_is_counted_and_told_to_publishers(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = denying()
    nats_server.start()
    client = await open_nats(userinfo="plain:secret")
    nats_server.reload(denying().replace("plain", "other"))
    await client.until(up=False)
    await eventually(lambda: client.counters.value("bus_refusals_total", kind="authorization") >= 2)
    assert doubt(client) == "bus_down"

    async def told() -> bool:
        with pytest.raises(BusUnavailable) as caught:
            client.bus.publish("t.a", b"")
        return "Authorization Violation" in str(caught.value)

    await eventually(told)


async def test_servers_and_replicas_prove_themselves_with_certificates_of_ones_own(
    nats_server: ChangingServer, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    files = f'cert_file: "{certificate}", key_file: "{key}", ca_file: "{certificate}"'
    nats_server.extra = f"tls {{ {files}, verify: true }}"
    nats_server.start()
    url = nats_server.url.replace("nats:", "tls:")
    ours = {"tls_certificate": str(certificate), "tls_key": str(key)}
    for more, works in (({"tls_ca": str(certificate), **ours}, True), (ours, False), ({}, False)):
        with structlog.testing.capture_logs() as logs:
            client = Client(
                open_bus(Section(url, **more), metrics=Counters(), name="test"), Counters()
            )
            await client.bus.start()
            if works:
                await client.until(up=True)
            else:
                await eventually(lambda logs=logs: "bus unreachable" in str(logs))
            await client.bus.close()
