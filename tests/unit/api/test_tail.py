"""The stream of a topic's messages for an operator."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientResponse

from gateway.api import tail as stream
from gateway.api.tail import CHUNK_BYTES, _chunks, _line
from gateway.audience import Audience
from gateway.cli.watch import SILENCE_SECONDS
from gateway.hub.broadcast import Broadcast
from gateway.tail import MAX_TAILS, WAITING_BYTES, TailGap, TailMessage
from tests.support.waiting import eventually
from tests.unit.api.fakes import Gateway
from tests.unit.api.test_openapi import DOCS


@asynccontextmanager
async def opened(gateway: Gateway, **query: str) -> AsyncIterator[ClientResponse]:
    headers = {"X-API-Key": "read-key"}
    async with gateway.client.get("/v1/tail", params=query, headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "application/x-ndjson"
        yield response


async def line(response: ClientResponse) -> dict[str, Any]:
    """The next line of a stream."""
    found: dict[str, Any] = json.loads(await response.content.readline())
    return found


async def test_a_topic_is_streamed_line_by_line_until_the_replica_is_drained(
    gateway: Gateway,
) -> None:
    async with opened(gateway, topic="room:1") as response:
        assert await line(response) == {
            "type": "start", "recovered": None, "reason": "no_history",
        }  # fmt: skip
        await gateway.looked.relay.publish("room:1", "hi", b'{"n": 1.0}')
        text = await response.content.readline()
        assert text == (
            b'{"type":"message","topic":"room:1","event":"hi","payload":{"n": 1.0},'
            b'"time":"1970-01-01T00:16:40.000Z"}\n'
        )
        gateway.looked.tails.end()
        assert await line(response) == {"type": "end", "reason": "drained"}
        assert await response.content.readline() == b""
    assert len(gateway.looked.tails) == 0


async def test_what_came_after_a_position_comes_first(gateway: Gateway) -> None:
    kept = gateway.looked.relay.publish
    async with opened(gateway, topic="kept:1") as response:
        await kept("kept:1", "a", b"{}")
        await line(response)
        position = (await line(response))["position"]
    await kept("kept:1", "b", b"{}")
    async with opened(gateway, topic="kept:1", after=position) as response:
        started = await line(response)
        assert (started["recovered"], started["position"]) == (True, position)
        assert (await line(response))["event"] == "b"


async def test_a_pattern_shows_all_that_begin_so(gateway: Gateway) -> None:
    async with opened(gateway, pattern="room:*") as response:
        await line(response)
        gateway.looked.relay.taps.offer(Broadcast("room:7", "a", b"\xff", binary=True))
        found = await line(response)

    assert (found["topic"], found["base64"]) == ("room:7", "/w==")
    assert "payload" not in found


async def test_a_quiet_stream_is_not_silent(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.001)
    async with opened(gateway, topic="kept:1") as response:
        started = await line(response)

        assert await line(response) == {"type": "heartbeat", "position": started["position"]}


async def test_a_client_that_goes_makes_room(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.001)
    async with opened(gateway, pattern="*") as response:
        await line(response)
        assert len(gateway.looked.tails) == 1
        response.close()

    await eventually(lambda: len(gateway.looked.tails) == 0)


async def test_a_reader_that_takes_nothing_is_cut_off(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "WRITE_SECONDS", 0.05)
    taps = gateway.looked.relay.taps
    async with opened(gateway, pattern="*"):
        while taps.open:  # until sockets and buffers are full
            taps.offer(Broadcast("room:1", "a", b" " * 500_000))
            await asyncio.sleep(0.001)

    assert len(gateway.looked.tails) == 0


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", ["topic"]),
        ("topic=a&pattern=b*", ["topic"]),
        ("topic=", ["topic"]),
        ("topic=" + "x" * 256, ["topic"]),
        ("pattern=room", ["pattern"]),
        ("pattern=", ["pattern"]),
        ("pattern=*:*", ["pattern"]),
        ("pattern=*&after=@e.1.1", ["after"]),
        ("topic=a&after=1", ["after"]),
        ("topic=a&last=1", ["last"]),
    ],
)
async def test_what_cannot_be_asked_is_told(
    gateway: Gateway, query: str, fields: list[str]
) -> None:
    answer = await gateway.ask("GET", f"/v1/tail?{query}")

    assert (answer.status, answer.slug, answer.fields) == (422, "invalid", fields)


async def test_it_needs_a_key_that_may_read(gateway: Gateway) -> None:
    assert (await gateway.ask("GET", "/v1/tail?topic=a", "publish-key")).status == 403
    assert (await gateway.ask("GET", "/v1/tail?topic=a", "wrong")).status == 401


async def test_there_is_room_for_so_many(gateway: Gateway) -> None:
    for _ in range(MAX_TAILS):
        gateway.looked.tails.open_pattern("")

    answer = await gateway.ask("GET", "/v1/tail?topic=a")

    assert (answer.status, answer.slug) == (429, "too-many-tails")


async def test_a_drained_replica_sends_whoever_asks_elsewhere(gateway: Gateway) -> None:
    gateway.drain.drained = True
    answer = await gateway.ask("GET", "/v1/tail?topic=a")

    assert (answer.status, answer.slug, answer.headers["Retry-After"]) == (503, "drained", "1")
    assert len(gateway.looked.tails) == 0


async def test_a_bus_that_is_down_is_told(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.looked.relay._interest, "_wait_seconds", 0)
    await gateway.looked.bus.close()

    answer = await gateway.ask("GET", "/v1/tail?topic=a")

    assert (answer.status, answer.slug) == (503, "bus-unavailable")


async def test_a_head_opens_nothing(gateway: Gateway) -> None:
    headers = {"X-API-Key": "read-key"}
    async with gateway.client.head("/v1/tail", params={"topic": "a"}, headers=headers) as response:
        assert response.status == 200
    assert len(gateway.looked.tails) == 0


def test_a_message_says_who_does_not_get_it_and_a_gap_how_wide_it_is() -> None:
    audience = Audience(frozenset("ba"), frozenset("c"), frozenset("d"))
    message = _line(TailMessage(Broadcast("t", "e", b"{}", audience=audience), 0.0))
    gap = _line(TailGap(3, "slow"))

    assert message.exclude_sessions == ["a", "b"]
    assert message.exclude_devices == ["c"]
    assert message.device_types == ["d"]
    assert (gap.type, gap.messages, gap.reason) == ("gap", 3, "slow")


def test_lines_are_joined_as_long_as_they_are_short() -> None:
    def sizes(*payloads: int) -> list[int]:
        messages = [TailMessage(Broadcast("t", "e", b"1" * each), 0.0) for each in payloads]
        return [chunk.count(b"\n") for chunk in _chunks(map(_line, messages))]

    assert sizes() == []
    assert sizes(1, 1, 1) == [3]
    assert sizes(CHUNK_BYTES, 1, CHUNK_BYTES, 1) == [1, 2, 1]


def test_the_documented_bounds_are_the_codes() -> None:
    section = DOCS.read_text("utf-8").split("## Tail a topic")[1].split("\n## ")[0]

    for said in (
        f"room for {MAX_TAILS} tails",
        f"most {WAITING_BYTES // 2**20} MiB waits",
        f"nothing came for {stream.HEARTBEAT_SECONDS:g} seconds",
        f"takes nothing for {stream.WRITE_SECONDS:g}",
    ):
        assert said in " ".join(section.split())
    assert SILENCE_SECONDS == 3 * stream.HEARTBEAT_SECONDS
