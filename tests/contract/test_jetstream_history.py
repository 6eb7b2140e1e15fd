"""What the history makes of a NATS server that fails, hangs, refuses, changes or is not there."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest
import structlog

from gateway.config.sections import HistorySettings
from gateway.errors import EnvelopeTooLarge, HistoryUnavailable, OutcomeUnknown
from gateway.history.jetstream import appender, reader, stream
from gateway.history.jetstream.reader import StreamReader
from gateway.retention import Retention
from tests.contract.admin import STREAM, Admin
from tests.contract.clients import ChangingServer
from tests.contract.histories import RETENTION, OpenReplica
from tests.support.nats import NatsServer
from tests.support.waiting import eventually

USERS = """
authorization {{ users = [
  {{user: gateway, password: secret, permissions: {{ publish: [{publish}], subscribe: [{subscribe}] }} }}
  {{user: admin, password: secret}}
] }}
"""


@pytest.fixture
async def admin(nats_server: ChangingServer) -> AsyncIterator[Admin]:
    """Connected to the server, which is started."""
    nats_server.start()
    client = await nats.connect(nats_server.url, allow_reconnect=False)
    yield Admin(client)
    await client.close()


async def test_what_was_acknowledged_survives_a_kill(
    nats_server: ChangingServer, open_replica: OpenReplica
) -> None:
    nats_server.start()
    here, there = await open_replica(), await open_replica()
    live = await there.hear("a")
    epoch, told = here.history.epoch, there.told
    acknowledged: dict[int, int] = {}
    unsettled: list[int] = []

    async def append(number: int) -> None:
        try:
            receipt = await here.history.append("a", b"%d" % number, id=f"{number}")
        except (HistoryUnavailable, OutcomeUnknown):
            unsettled.append(number)
        else:
            acknowledged[number] = receipt.offset

    wide = Retention(100_000, 300)
    wider = await open_replica(retention=wide)
    appending = asyncio.create_task(_many(append, 3000))
    await eventually(lambda: len(acknowledged) > 300)
    nats_server.kill()
    await appending
    assert unsettled
    assert here.history.problem == "unavailable"
    nats_server.start()
    for replica in (here, there, wider):
        await replica.until_ready()
    assert here.history.epoch == epoch
    await there.until_told(told + 1)
    for number in unsettled.copy():
        receipt = await here.history.append("a", b"%d" % number, id=f"{number}")
        acknowledged[number] = receipt.offset
    kept = {
        stored.offset: int(stored.body) for stored in await here.history.after("a", 0, limit=10_000)
    }
    assert kept == {offset: number for number, offset in acknowledged.items()}
    assert len(kept) == 3000
    assert live.offsets == sorted(live.offsets)


async def _many(append: Any, count: int) -> None:
    """Run something for each number, fifty at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await append(number)

    await asyncio.gather(*(work() for _ in range(50)))


async def test_a_message_that_took_long_has_the_time_it_was_stored_at(
    nats_server: ChangingServer, open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one it was sent at, whoever publishes it again."""
    monkeypatch.setattr(appender, "SENT_SECONDS", -1.0)  # whatever it took, it was too long
    nats_server.start()
    here = await open_replica()
    first = await here.history.append("a", b"1", id="one")
    repeat = await here.history.append("a", b"1", id="one")

    assert first.time == repeat.time == await here.history.time_at(first.offset)
    assert repeat.duplicate


async def test_a_hanging_server_leaves_an_open_outcome_that_a_repeat_settles(
    nats_server: ChangingServer, open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "ACKNOWLEDGE_SECONDS", 1.0)
    nats_server.start()
    here = await open_replica()
    live = await here.hear("a")
    nats_server.pause()
    outcomes = await asyncio.gather(
        here.history.append("a", b"1", id="one"),
        here.history.append("a", b"2"),
        here.history.tip(),
        here.history.after("a", 0, limit=1),
        here.history.erase("b"),
        return_exceptions=True,
    )
    kinds = (OutcomeUnknown, OutcomeUnknown, HistoryUnavailable, HistoryUnavailable, OutcomeUnknown)
    assert [type(outcome) for outcome in outcomes] == list(kinds)
    nats_server.resume()
    await here.until_ready()
    repeat = await here.history.append("a", b"1", id="one")
    assert repeat.duplicate
    await live.until(2)
    assert sorted(live.bodies) == [b"1", b"2"]


@pytest.mark.slow
async def test_a_server_found_to_hang_ends_what_waits_for_it_and_refuses_the_rest(
    nats_server: ChangingServer, open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appender, "ACKNOWLEDGE_SECONDS", 60.0)
    nats_server.start()
    here = await open_replica()
    nats_server.pause()
    with pytest.raises(OutcomeUnknown):
        await here.history.append("a", b"1", id="one")
    assert not here.bus.connected
    with pytest.raises(HistoryUnavailable):
        await here.history.append("a", b"2", id="two")
    nats_server.resume()
    await here.until_ready()
    assert (await here.history.append("a", b"1", id="one")).duplicate
    assert not (await here.history.append("a", b"2", id="two")).duplicate


@pytest.mark.parametrize("advised", [True, False])
async def test_a_deleted_stream_is_made_anew_with_another_epoch(
    admin: Admin, open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch, advised: bool
) -> None:
    monkeypatch.setattr(stream, "LOOK_SECONDS", 3600)
    if not advised:
        monkeypatch.setattr(stream, "ADVISORIES", ())
    here, there = await open_replica(), await open_replica()
    live = await there.hear("a")
    await here.history.append("a", b"1")
    epoch, told = here.history.epoch, there.told
    await admin.ask("STREAM.DELETE")
    if not advised:  # it is noticed by whoever uses it
        for replica in (here, there):
            with pytest.raises(HistoryUnavailable):
                await replica.history.append("a", b"lost")
    await eventually(lambda: here.history.epoch != epoch)
    await eventually(lambda: there.history.epoch == here.history.epoch)
    await here.until_ready()
    await there.until_told(told + 1)
    assert (await here.history.tip()).epoch == here.history.epoch
    assert (await here.history.append("a", b"2")).offset == 1
    await live.until(2)
    assert [(place.offset, place.previous) for place in live.positions] == [(1, 0), (1, 0)]
    assert await there.bodies("a") == [b"2"]


async def test_a_stream_made_anew_while_nobody_looked_is_noticed_by_its_tip(
    admin: Admin, open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LOOK_SECONDS", 3600)
    monkeypatch.setattr(stream, "ADVISORIES", ())
    here = await open_replica()
    config = await admin.config()
    epoch, told = here.history.epoch, here.told
    await admin.ask("STREAM.DELETE")
    await admin.ask("STREAM.CREATE", config)
    assert (await here.history.tip()).epoch != epoch
    await here.until_told(told + 1)
    assert here.history.epoch != epoch


async def test_a_store_that_was_lost_with_its_server_has_another_epoch(
    nats_server: ChangingServer, open_replica: OpenReplica
) -> None:
    nats_server.start()
    here = await open_replica()
    await here.history.append("a", b"1")
    epoch, told = here.history.epoch, here.told
    nats_server.kill()
    await eventually(lambda: here.history.problem == "unavailable")
    nats_server.forget()
    nats_server.start()
    await here.until_told(told + 1)
    assert here.history.problem is None
    assert here.history.epoch != epoch
    assert await here.bodies("a") == []


async def test_a_stream_is_widened_and_never_narrowed(
    admin: Admin, open_replica: OpenReplica
) -> None:
    narrow = await open_replica(
        retention=Retention(5, 100), settings=HistorySettings(max_bytes=10**6)
    )
    config = await admin.config()
    await admin.ask("STREAM.UPDATE", config | {"description": "by the operator"})
    assert (config["max_msgs_per_subject"], config["max_age"]) == (6, 160 * 10**9)
    assert (config["max_bytes"], config["num_replicas"]) == (10**6, 1)

    await open_replica(retention=Retention(3, 1000), settings=HistorySettings(max_bytes=10**7))
    config = await admin.config()
    assert (config["max_msgs_per_subject"], config["max_age"]) == (6, 1060 * 10**9)
    assert config["max_bytes"] == 10**7
    assert config["description"] == "by the operator"

    await open_replica(retention=Retention(3, 10))
    config = await admin.config()
    assert (config["max_msgs_per_subject"], config["max_age"]) == (6, 1060 * 10**9)
    assert config["max_bytes"] == -1

    epoch = narrow.history.epoch
    await admin.ask("STREAM.UPDATE", config | {"max_msgs_per_subject": 2})

    async def wide_again() -> bool:
        return bool((await admin.config())["max_msgs_per_subject"] == 6)

    await eventually(wide_again)
    assert narrow.history.epoch == epoch


async def test_many_replicas_with_different_rules_start_at_once(
    admin: Admin, open_replica: OpenReplica
) -> None:
    replicas = await asyncio.gather(
        *(open_replica(retention=Retention(n, 1000 - n), wait=False) for n in range(1, 11))
    )
    for replica in replicas:
        await replica.until_ready()

    async def widest() -> bool:
        config = await admin.config()
        return (config["max_msgs_per_subject"], config["max_age"]) == (11, 1059 * 10**9)

    await eventually(widest)
    assert len({replica.history.epoch for replica in replicas}) == 1


async def test_a_wish_that_cannot_be_had_does_not_keep_from_what_is_needed(
    admin: Admin, open_replica: OpenReplica
) -> None:
    """One server cannot keep three copies; a rule's limits are kept all the same."""
    await open_replica()
    with structlog.testing.capture_logs() as logs:
        more = Retention(RETENTION.messages + 5, RETENTION.seconds)
        await open_replica(retention=more, settings=HistorySettings(replicas=3))
    config = await admin.config()
    assert (config["max_msgs_per_subject"], config["num_replicas"]) == (more.messages + 1, 1)
    assert "history stream cannot be widened" in {entry["event"] for entry in logs}


async def test_a_stream_of_that_name_that_is_somebody_elses_is_left_alone(
    admin: Admin, open_replica: OpenReplica
) -> None:
    await admin.ask(
        "STREAM.CREATE", {"name": STREAM, "subjects": ["orders.>"], "storage": "memory"}
    )
    config = await admin.config()
    with structlog.testing.capture_logs() as logs:
        here = await open_replica(wait=False)
        await eventually(lambda: any("not this gateway's" in str(entry) for entry in logs))
    assert here.history.problem == "stream_unfit"
    with pytest.raises(HistoryUnavailable):
        await here.history.append("a", b"x")
    assert await admin.config() == config


async def test_a_stream_that_was_sealed_is_left_alone_until_it_is_deleted(
    admin: Admin, open_replica: OpenReplica
) -> None:
    here = await open_replica()
    await here.history.append("a", b"x")
    await admin.ask("STREAM.UPDATE", await admin.config() | {"sealed": True})
    await eventually(lambda: here.history.problem == "stream_unfit")
    config = await admin.config()
    with pytest.raises(HistoryUnavailable):
        await here.history.append("a", b"x")
    assert await admin.config() == config
    await admin.ask("STREAM.DELETE")
    await here.until_ready()
    assert (await here.history.append("a", b"x")).offset == 1


async def test_the_end_says_since_when_messages_are_kept(
    admin: Admin, open_replica: OpenReplica
) -> None:
    here = await open_replica()
    empty = await here.history.tip()
    assert (empty.offset, empty.first) == (0, 1)
    assert empty.kept_since < 0, "nothing was ever stored"
    for _ in range(3):
        await here.history.append("a", b"x")
    first, last = [await here.history.time_at(offset) for offset in (1, 3)]
    tip = await here.history.tip()
    assert (tip.first, tip.kept_since) == (1, first)
    await admin.ask("STREAM.PURGE", {"seq": 3})
    tip = await here.history.tip()
    assert (tip.first, tip.kept_since) == (3, last)
    await admin.ask("STREAM.PURGE")
    tip = await here.history.tip()
    assert (tip.first, tip.kept_since) == (4, last)


async def test_a_server_without_jetstream_is_named_as_the_reason(
    tmp_path: Path, open_replica: OpenReplica
) -> None:
    server = NatsServer(tmp_path / "plain", jetstream=False)
    server.start()
    try:
        here = await open_replica(url=server.url, wait=False)
        await eventually(lambda: here.history.problem == "no_jetstream")
        with pytest.raises(HistoryUnavailable) as caught:
            await here.history.append("a", b"x")
        assert caught.value.reason == "no_jetstream"
        assert here.bus.connected
        server.stop()
        server.jetstream = True
        server.start()
        await here.until_ready()
        assert (await here.history.append("a", b"x")).offset == 1
    finally:
        server.kill()


async def test_an_account_without_jetstream_is_named_as_the_reason(
    nats_server: ChangingServer, open_replica: OpenReplica
) -> None:
    nats_server.extra = """accounts {
  A: { users: [{user: gateway, password: secret}] }
  B: { users: [{user: other, password: secret}], jetstream: enabled }
}"""
    nats_server.start()
    here = await open_replica(url=nats_server.login("gateway:secret"), wait=False)
    await eventually(lambda: here.history.problem == "no_jetstream")


@pytest.mark.parametrize("version", ["2.10.29", "2.9.0", "1.4.1"])
async def test_a_server_that_is_too_old_is_named_as_the_reason(
    open_replica: OpenReplica, version: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = f'INFO {{"max_payload":5000,"version":"{version}","headers":true}}\r\n'
        writer.write(info.encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    here = await open_replica(url=f"nats://127.0.0.1:{port}", wait=False)
    await eventually(lambda: here.history.problem == "server_too_old")
    assert here.bus.connected
    with pytest.raises(HistoryUnavailable) as caught:
        await here.history.tip()
    assert caught.value.reason == "server_too_old"
    await here.close()
    server.close()
    await server.wait_closed()


async def test_the_documented_permissions_are_enough(
    nats_server: ChangingServer, open_replica: OpenReplica
) -> None:
    nats_server.extra = USERS.format(publish='"t.>", "$JS.API.>"', subscribe='"t.>"')
    nats_server.start()
    url = nats_server.login("gateway:secret")
    with structlog.testing.capture_logs() as logs:
        here = await open_replica(url=url)
    live = await here.hear("a")
    await here.history.append("a", b"1")
    await here.history.append("b", b"2", id="x")
    await here.history.append("b", b"3", id="x")
    await live.until(1)
    assert await here.bodies("b") == [b"2"]
    assert await here.history.newest("a", 5)
    assert await here.history.time_at(1)
    assert len(await here.history.last_offsets("ab")) == 2
    assert await here.history.erase("b") == 1
    assert "history advisories are denied" in {entry["event"] for entry in logs}
    assert here.bus.connected


@pytest.mark.parametrize(
    ("publish", "works"), [('"t.topic.>"', False), ('"t.topic.>", "$JS.API.>"', True)]
)
async def test_missing_permissions_are_a_reason_and_no_loss_of_the_connection(
    nats_server: ChangingServer, open_replica: OpenReplica, publish: str, works: bool
) -> None:
    nats_server.extra = USERS.format(publish=publish, subscribe='"t.>"')
    nats_server.start()
    url = nats_server.login("gateway:secret")
    with structlog.testing.capture_logs() as logs:
        here = await open_replica(url=url, wait=works)
        if not works:
            await eventually(lambda: "Permissions Violation for Publish" in str(logs))
    with pytest.raises(HistoryUnavailable):
        await here.history.append("a", b"x")
    live = await here.hear("a")
    here.bus.publish("t.topic.a", b"y")
    await live.until(1)
    nats_server.reload(USERS.format(publish='"t.>", "$JS.API.>"', subscribe='"t.>"'))

    async def stored() -> bool:
        try:
            await here.history.append("a", b"z")
        except (HistoryUnavailable, OutcomeUnknown):
            return False
        return True

    await eventually(stored)
    assert "secret" not in str(logs)


async def test_headers_count_when_a_message_is_measured(
    nats_server: ChangingServer, open_replica: OpenReplica
) -> None:
    """The server would close the connection over one byte too much."""
    nats_server.extra = "max_payload: 10000"
    nats_server.start()
    here = await open_replica()
    with pytest.raises(EnvelopeTooLarge) as caught:
        await here.history.append("a", bytes(10_000), id="x")
    assert caught.value.limit == 10_000
    headers = caught.value.size - 10_000
    assert headers > 0
    assert (await here.history.append("a", bytes(10_000 - headers), id="x")).offset == 1
    assert (await here.history.append("a", bytes(10_000))).offset == 2
    topics = ["é" * 80 + str(number) for number in range(300)]  # more subjects than fit
    assert await here.history.last_offsets([*topics, "a"]) == {"a": 2}
    assert here.bus.connected


async def test_a_message_the_stream_does_not_take_is_too_large(
    admin: Admin, open_replica: OpenReplica
) -> None:
    here = await open_replica()
    told = here.told
    await admin.ask("STREAM.UPDATE", await admin.config() | {"max_msg_size": 1000})
    with pytest.raises(EnvelopeTooLarge):
        await here.history.append("a", bytes(1001))
    assert (await here.history.append("a", bytes(1000))).offset == 1
    assert here.told == told


async def test_the_oldest_of_all_topics_go_when_the_store_is_full(
    admin: Admin, open_replica: OpenReplica
) -> None:
    here = await open_replica(settings=HistorySettings(max_bytes=20_000))
    for number in range(30):
        await here.history.append(f"t:{number}", bytes(1000))
    tip = await here.history.tip()
    assert tip.offset == 30
    assert 1 < tip.first < 30
    assert await here.history.time_at(tip.first - 1) is None
    assert await here.history.time_at(tip.first) is not None
    assert len(await here.history.last_offsets([f"t:{n}" for n in range(30)])) == 31 - tip.first
    assert (await admin.config())["discard"] == "old"


async def test_answers_in_many_parts_are_put_together(
    nats_server: ChangingServer, open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "READ_BYTES", 3000)
    monkeypatch.setattr(reader, "SUBJECTS_AT_A_TIME", 7)
    nats_server.start()
    here = await open_replica(retention=Retention(1000, 300))
    for number in range(40):
        await here.history.append("a", b"%d " % number + bytes(500))
        await here.history.append(f"b:{number}", bytes(500))
    kept = await here.history.after("a", 0, limit=100, upto=80)
    assert [int(stored.body.split()[0]) for stored in kept] == list(range(40))
    kept = await here.history.after("a", 0, limit=25)
    assert [int(stored.body.split()[0]) for stored in kept] == list(range(25))
    kept = await here.history.newest("a", 15)
    assert [int(stored.body.split()[0]) for stored in kept] == list(range(25, 40))
    topics = [f"b:{number}" for number in range(50)]
    found = await here.history.last_offsets(topics)
    assert found == {f"b:{number}": 2 * number + 2 for number in range(40)}


async def test_the_newest_of_a_long_history_are_found_without_reading_it_all(
    nats_server: ChangingServer, open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    nats_server.start()
    here = await open_replica(retention=Retention(10_000, 300))
    for topic in ("a", "b", "a"):
        await asyncio.gather(*(here.history.append(topic, b"x") for _ in range(1000)))
    read = 0
    original = StreamReader._read

    async def counted(self: StreamReader, subject: str, start: int, count: int) -> Any:
        nonlocal read
        found, pending = await original(self, subject, start, count)
        read += len(found)
        return found, pending

    monkeypatch.setattr(StreamReader, "_read", counted)
    for count in (1, 2, 10, 100, 999, 1000, 1001, 1999, 2000, 5000):
        read = 0
        offsets = [stored.offset for stored in await here.history.newest("a", count)]
        wanted = [*range(1, 1001), *range(2001, 3001)][-count:]
        assert offsets == wanted
        assert read <= 5 * count + 50


async def test_a_stopped_history_no_longer_looks_after_its_stream(
    admin: Admin, open_replica: OpenReplica
) -> None:
    here = await open_replica()
    await here.history.close()
    told = here.told
    await admin.ask("STREAM.DELETE")
    live = await here.hear("a")
    here.bus.publish("t.topic.a", b"x")
    await live.until(1)
    assert here.told == told


async def test_a_replica_away_from_its_server_says_so(
    nats_server: ChangingServer, open_replica: OpenReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LOOK_SECONDS", 3600)
    here = await open_replica(wait=False)
    assert here.history.problem == "unavailable"
    nats_server.start()
    await here.until_ready()
    nats_server.kill()
    await eventually(lambda: here.history.problem == "unavailable")
    started = time.monotonic()
    with pytest.raises(HistoryUnavailable):
        await here.history.append("a", b"x")
    assert time.monotonic() - started < appender.ACKNOWLEDGE_SECONDS
