"""Values kept on a NATS server: read whole, kept long enough, and none where there is no JetStream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest
from nats.js import JetStreamContext
from nats.js.api import KeyValueConfig

from gateway.bus import buckets
from gateway.errors import BusUnavailable, NothingKept
from tests.contract.clients import ChangingServer, Client, OpenClient

BUCKET = "g_kept"
STREAM = f"KV_{BUCKET}"

NO_LEADER = """
server_name: one
cluster { name: c, listen: "127.0.0.1:-1", routes: ["nats://127.0.0.1:1"] }
"""
"""JetStream in a cluster whose other member never comes does not answer."""

ACCOUNTS = """
accounts {
  GATEWAY { users: [{user: me, password: secret}] }
  OTHERS { jetstream: enabled, users: [{user: other, password: secret}] }
}
"""

DENIED = """
authorization { users: [{user: me, password: secret, permissions: {
  publish: [%s], subscribe: ["t.>"] }}] }
"""


@asynccontextmanager
async def operator(server: ChangingServer) -> AsyncIterator[JetStreamContext]:
    """What an operator can do on the server."""
    client = await nats.connect(server.url)
    yield client.jetstream()
    await client.close()


async def put(client: Client, key: str, value: bytes = b"1", keep_seconds: float = 3600) -> None:
    """Keep a value in the bucket."""
    await client.bus.put(BUCKET, key, value, keep_seconds=keep_seconds)


async def test_all_entries_are_read_however_many_there_are(
    nats_server: ChangingServer, open_nats: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "PAGE_MESSAGES", 7)
    nats_server.start()
    here, there = await open_nats(), await open_nats()
    expected = {f"key-{n}": b"%d" % n for n in range(100)}
    for key, value in expected.items():
        await put(here, key, b"before")
        await put(here, key, value)

    assert await there.bus.entries(BUCKET) == expected


async def test_what_was_taken_away_is_no_entry(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    client = await open_nats()
    for key in ("deleted", "purged", "empty"):
        await put(client, key, b"")
    async with operator(nats_server) as stream:
        bucket = await stream.key_value(BUCKET)
        await bucket.delete("deleted")
        await bucket.purge("purged")

    assert await client.bus.entries(BUCKET) == {"empty": b""}
    assert await client.bus.get(BUCKET, "empty") == b""
    assert await client.bus.get(BUCKET, "deleted") is None


async def test_entries_are_there_right_after_a_restart(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    client = await open_nats()
    await put(client, "a")
    for _ in range(3):
        nats_server.kill()
        await client.until(up=False)
        with pytest.raises(BusUnavailable):
            await client.bus.entries(BUCKET)
        nats_server.start()
        await client.until(up=True)
        assert await client.bus.entries(BUCKET) == {"a": b"1"}


async def test_a_bucket_that_somebody_deletes_is_made_again(
    nats_server: ChangingServer, open_nats: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "TRY_AGAIN_SECONDS", 0)
    nats_server.start()
    client = await open_nats()
    await put(client, "a")
    async with operator(nats_server) as stream:
        await stream.delete_key_value(BUCKET)

    assert await client.bus.entries(BUCKET) == {}
    with pytest.raises(BusUnavailable):
        await put(client, "b")
    await put(client, "b")
    assert await client.bus.entries(BUCKET) == {"b": b"1"}


async def test_values_are_kept_for_as_long_as_is_wanted_and_then_forgotten(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    client = await open_nats()
    await put(client, "a", keep_seconds=100)
    async with operator(nats_server) as stream:
        assert (await stream.stream_info(STREAM)).config.max_age == 100
        # another configuration, after a restart
        await put(await open_nats(), "b", keep_seconds=200)
        assert (await stream.stream_info(STREAM)).config.max_age == 200
        await put(await open_nats(), "c", keep_seconds=100)
        assert (await stream.stream_info(STREAM)).config.max_age == 200

    assert (await client.bus.entries(BUCKET)).keys() == {"a", "b", "c"}


async def test_a_bucket_of_the_operators_is_left_as_it_is(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.start()
    client = await open_nats()
    async with operator(nats_server) as stream:
        await stream.create_key_value(config=KeyValueConfig(bucket=BUCKET, ttl=50, history=3))
        for n in range(5):
            await put(client, "a", b"%d" % n)
        await put(client, "b")
        assert (await stream.stream_info(STREAM)).config.max_age == 50

    assert await client.bus.entries(BUCKET) == {"a": b"4", "b": b"1"}


async def test_without_jetstream_nothing_is_kept_and_that_is_said(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.jetstream = False
    nats_server.start()
    client = await open_nats()
    for _ in range(2):
        with pytest.raises(NothingKept):
            await client.bus.entries(BUCKET)
        with pytest.raises(NothingKept):
            await put(client, "a")
        with pytest.raises(NothingKept):
            await client.bus.get(BUCKET, "a")


async def test_an_account_without_jetstream_keeps_nothing(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = ACCOUNTS
    nats_server.start()
    client = await open_nats(userinfo="me:secret")
    with pytest.raises(NothingKept):
        await client.bus.entries(BUCKET)
    with pytest.raises(NothingKept):
        await put(client, "a")


async def test_who_has_no_permission_for_jetstream_is_told_that_nothing_is_kept(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = DENIED % '"g.>"'
    nats_server.start()
    client = await open_nats(userinfo="me:secret")
    with pytest.raises(NothingKept):
        await client.bus.entries(BUCKET)
    with pytest.raises(NothingKept):
        await put(client, "a")
    assert client.bus.connected


async def test_permissions_may_be_missing_for_one_bucket_alone(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = DENIED % f'"$JS.>", "$KV.{BUCKET}.>"'
    nats_server.start()
    client = await open_nats(userinfo="me:secret")
    with pytest.raises(NothingKept):
        await client.bus.put("g_Other", "a", b"", keep_seconds=3600)
    with pytest.raises(NothingKept):
        await client.bus.entries("g_Other")
    await put(client, "a")
    assert await client.bus.entries(BUCKET) == {"a": b"1"}


async def test_a_jetstream_that_does_not_answer_is_no_missing_one(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    """Whoever takes it for a missing one would believe that nothing was kept."""
    nats_server.extra = NO_LEADER
    nats_server.start()
    client = await open_nats()
    for call in (client.bus.entries(BUCKET), put(client, "a"), client.bus.get(BUCKET, "a")):
        with pytest.raises(BusUnavailable) as caught:
            await call
        assert not isinstance(caught.value, NothingKept)


async def test_many_writers_do_not_wait_one_after_the_other_for_an_answer_that_does_not_come(
    nats_server: ChangingServer, open_nats: OpenClient
) -> None:
    nats_server.extra = NO_LEADER
    nats_server.start()
    client = await open_nats()
    tries = [put(client, f"key-{n}") for n in range(50)]
    async with asyncio.timeout(10 * buckets.ANSWER_SECONDS):
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert all(isinstance(outcome, BusUnavailable) for outcome in outcomes)


async def test_a_reading_that_finds_less_than_there_is_fails(
    nats_server: ChangingServer, open_nats: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a copy of the stream lags behind its leader."""
    nats_server.start()
    client = await open_nats()
    await put(client, "a")
    read = buckets._read

    async def one_more(stream: JetStreamContext, bucket: str, messages: int) -> dict[str, bytes]:
        return await read(stream, bucket, messages + 1)

    monkeypatch.setattr(buckets, "_read", one_more)
    with pytest.raises(BusUnavailable):
        await client.bus.entries(BUCKET)


async def test_a_reading_whose_reader_is_gone_is_no_sign_of_a_missing_jetstream(
    nats_server: ChangingServer, open_nats: OpenClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No server answers for either; who takes one for the other starts without what was revoked."""
    nats_server.start()
    client = await open_nats()
    await put(client, "a")
    subscribe = JetStreamContext.pull_subscribe

    async def lose(
        context: JetStreamContext, subject: str, **options: Any
    ) -> JetStreamContext.PullSubscription:
        reader = await subscribe(context, subject, **options)
        await context.delete_consumer(STREAM, (await reader.consumer_info()).name)
        return reader

    monkeypatch.setattr(JetStreamContext, "pull_subscribe", lose)
    with pytest.raises(BusUnavailable) as refusal:
        await client.bus.entries(BUCKET)
    assert not isinstance(refusal.value, NothingKept)
