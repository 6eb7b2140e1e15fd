"""Event streams of one replica, read by httpx-sse and curl: what comes, what resumes, what is refused."""

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.gateway import API_KEY, GatewayProcess
from tests.support.tokens import BRIEF, token
from tests.support.waiting import eventually

HISTORY = {"messages": 100, "seconds": 300}
CHANNELS: list[dict[str, Any]] = [
    {"pattern": "room:*", "push": "broadcast"},
    {"pattern": "kept:*", "push": "broadcast", "history": HISTORY},
    {"pattern": "few:*", "history": {"messages": 2, "seconds": 300}},
    {"pattern": "seen:*", "presence": True},
    {"pattern": "mine:{sub}"},
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """One for all of this module but those that end it."""
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), {"channels": CHANNELS})
    process.start()
    yield process
    process.kill()


class Stream:
    """An open stream; what dispatches nothing counts for :attr:`last_id` alone."""

    def __init__(self, events: AsyncIterator[ServerSentEvent], response: httpx.Response) -> None:
        self._events = events
        self.response = response
        self.last_id = ""

    async def next(self, event: str) -> dict[str, Any]:
        """The data of the next event, which is to be of this name."""
        return await self.either(event)

    async def either(self, *events: str) -> dict[str, Any]:
        """The same for one of some names."""
        async with asyncio.timeout(20):
            async for each in self._events:
                self.last_id = each.id or self.last_id
                if each.data:
                    assert each.event in events, each.data
                    data: dict[str, Any] = json.loads(each.data)
                    return data
        raise AssertionError("it ended")

    async def place(self) -> str:
        """The next id that comes alone, as after a join."""
        async with asyncio.timeout(20):
            async for each in self._events:
                if each.id and not each.data:
                    self.last_id = each.id
                    return each.id
                assert not each.data, each
        raise AssertionError("it ended")

    async def ended(self) -> None:
        async with asyncio.timeout(20):
            async for each in self._events:
                assert not each.data, each


@asynccontextmanager
async def stream(
    gateway: GatewayProcess, *topics: str, last_id: str = "", **query: str
) -> AsyncIterator[Stream]:
    """Open one, as user 42 unless it is said otherwise."""
    params = [("topic", topic) for topic in topics] + [*({"token": token("42")} | query).items()]
    headers = {"Last-Event-ID": last_id} if last_id else {}
    url = f"{gateway.public_url}/socket/sse"
    async with (
        httpx.AsyncClient(timeout=30) as client,
        aconnect_sse(client, "GET", url, params=params, headers=headers) as source,
    ):
        source.response.raise_for_status()
        yield Stream(source.aiter_sse(), source.response)


async def test_a_stream_is_a_session_that_listens(gateway: GatewayProcess) -> None:
    async with Backend(gateway) as backend, stream(gateway, "room:1", device_id="d") as reader:
        headers = reader.response.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-store", "no")
        assert headers["Access-Control-Allow-Origin"] == "*"
        await reader.place()

        [session] = (await backend.get("/v1/users/42/sessions"))[1]["items"]
        assert (session["transport"], session["protocol"]) == ("sse", "sse")
        assert (session["device"]["id"], session["topics"]) == ("d", ["room:1"])
        assert gateway.metric("connections", transport="sse") == 1

        body = b'{"topic":"room:1","event":"said","payload":{"n":\r\n 1,\n"text":"a\\nb"}}'
        key = {"Content-Type": "application/json", "Authorization": f"Bearer {API_KEY}"}
        async with httpx.AsyncClient(headers=key) as client:
            answer = await client.post(f"{gateway.internal_url}/v1/publish", content=body)
            assert answer.status_code == 202
        said = {"topic": "room:1", "event": "said", "payload": {"n": 1, "text": "a\nb"}}
        assert await reader.next("said") == said
        await backend.publish("room:1", "two\ndata: lines", {"n": 2})
        assert (await reader.next("two data: lines"))["event"] == "two\ndata: lines"
    await eventually(lambda: gateway.metric("connections", transport="sse") == 0)
    await eventually(lambda: gateway.metric("sessions") == 0)


async def test_curl_shows_it(gateway: GatewayProcess) -> None:
    url = f"{gateway.public_url}/socket/sse?topic=room:curl&token={token('42')}"
    curl = await asyncio.create_subprocess_exec(
        shutil.which("curl") or "curl", "-sN", url, stdout=subprocess.PIPE
    )
    assert curl.stdout is not None
    try:
        assert (await curl.stdout.readline()).startswith(b"retry: ")
        await eventually(lambda: gateway.metric("sessions") == 1)
        async with Backend(gateway) as backend:
            await backend.publish("room:curl", "said", {"n": 1})
        lines = [await curl.stdout.readline() for _ in range(5)]
        assert lines[-2:] == [
            b"event: said\n",
            b'data: {"topic":"room:curl","event":"said","payload":{"n": 1}}\n',
        ]
    finally:
        curl.kill()
        await curl.wait()


async def test_an_id_resumes_a_stream_of_one_topic(gateway: GatewayProcess) -> None:
    async with Backend(gateway) as backend:
        async with stream(gateway, "kept:1") as reader:
            first = await reader.place()
            await backend.publish("kept:1", "said", {"n": 1})
            assert (await reader.next("said"))["payload"] == {"n": 1}
            then = reader.last_id
        await backend.publish("kept:1", "said", {"n": 2})
        for start, expected in ((then, [2]), (first, [1, 2])):
            async with stream(gateway, "kept:1", last_id=start) as reader:
                assert [(await reader.next("said"))["payload"]["n"] for _ in expected] == expected
        async with stream(gateway, "kept:1", resume="last:1") as reader:
            assert (await reader.next("said"))["payload"] == {"n": 2}
        async with stream(gateway, "kept:1", resume=first) as reader:
            assert (await reader.next("said"))["payload"] == {"n": 1}


async def test_an_id_resumes_all_topics_of_a_stream(gateway: GatewayProcess) -> None:
    topics = [f"kept:all-{number}" for number in range(5)]
    async with Backend(gateway) as backend:
        async with stream(gateway, *topics, "room:all") as reader:
            ids = [await reader.place() for _ in range(6)]
            for number, topic in enumerate(topics[:3]):
                await backend.publish(topic, "said", {"n": number})
                assert (await reader.next("said"))["topic"] == topic
            ids.append(reader.last_id)
        for number, topic in enumerate(topics):
            await backend.publish(topic, "said", {"n": 10 + number})

        later = {(topic, 10 + number) for number, topic in enumerate(topics)}
        earlier = {(topic, number) for number, topic in enumerate(topics[:3])}
        for start, expected in ((ids[-1], later), (ids[5], later | earlier)):
            async with stream(gateway, *topics, "room:all", last_id=start) as reader:
                got = [await reader.either("said", "gap") for _ in range(len(expected) + 1)]
            gaps = [data for data in got if "reason" in data]
            assert gaps == [{"topic": "room:all", "reason": "no_history"}]
            said = [(data["topic"], data["payload"]["n"]) for data in got if "payload" in data]
            assert len(said) == len(set(said))
            assert set(said) == expected


@pytest.mark.parametrize(
    ("topic", "last_id", "reason"),
    [
        ("kept:gap", "nonsense", "invalid"),
        ("kept:gap", "@zz", "invalid"),
        ("kept:gap", "@other-epoch.1f.18f00000000", "epoch_changed"),
        ("room:gap", "@-.0.0", "no_history"),
        ("few:gap", "first", "too_many"),
    ],
)
async def test_what_cannot_be_recovered_is_told(
    gateway: GatewayProcess, topic: str, last_id: str, reason: str
) -> None:
    async with Backend(gateway) as backend:
        if last_id == "first":
            async with stream(gateway, topic) as reader:
                last_id = await reader.place()
            for number in range(4):
                await backend.publish(topic, "said", {"n": number})
        async with stream(gateway, topic, last_id=last_id) as reader:
            assert await reader.next("gap") == {"topic": topic, "reason": reason}
            assert reader.last_id != last_id or reason == "no_history"
            await backend.publish(topic, "said", {"n": 9})
            assert (await reader.next("said"))["payload"] == {"n": 9}


async def test_an_id_of_other_topics_is_no_place_in_these(gateway: GatewayProcess) -> None:
    async with stream(gateway, "kept:a", "kept:b") as reader:
        await reader.place()
        of_two = await reader.place()
    async with stream(gateway, "kept:b", last_id=of_two) as reader:
        of_one = await reader.place()  # it is among them
        assert of_one.startswith("@")
    for topics, last_id in ((("kept:c", "kept:d"), of_two), (("kept:a", "kept:b"), of_one)):
        async with stream(gateway, *topics, last_id=last_id) as reader:
            told = [await reader.next("gap") for _ in topics]
            assert told == [{"topic": topic, "reason": "invalid"} for topic in topics]


async def test_a_refused_topic_is_told_and_the_others_go_on(gateway: GatewayProcess) -> None:
    topics = ("mine:7", "none:1", "phoenix", "room:good")
    async with stream(gateway, *topics) as reader:
        told = [await reader.next("refused") for _ in range(3)]
        assert told == [
            {"reason": "unauthorized", "topic": "mine:7"},
            {"reason": "unmatched topic", "topic": "none:1"},
            {"reason": "unmatched topic", "topic": "phoenix"},
        ]
        await reader.place()
        async with Backend(gateway) as backend:
            await backend.publish("room:good", "said", {})
        assert (await reader.next("said"))["topic"] == "room:good"
    async with stream(gateway, "few:1", resume="last:3") as reader:
        assert await reader.next("refused") == {"reason": "invalid resume", "topic": "few:1"}


async def test_presence_comes_if_asked_for(gateway: GatewayProcess) -> None:
    async with (
        stream(gateway, "seen:1", presence="true") as asked,
        stream(gateway, "seen:1", token=token("7")) as plain,
        Backend(gateway) as backend,
    ):
        state = await asked.next("presence_state")
        assert state["topic"] == "seen:1"
        while "7" not in state["payload"]:  # its own coming may be told in a diff
            state = {"payload": (await asked.next("presence_diff"))["payload"]["joins"]}
        await plain.place()
        await backend.publish("seen:1", "said", {})
        await plain.next("said")
        await asked.next("said")


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "reason"),
    [
        ("GET ", {}, 400, "bad_query"),
        ("GET " + "&".join(f"topic=room:{n}" for n in range(200)), {}, 400, "bad_query"),
        (f"GET topic={'x' * 256}", {}, 400, "bad_query"),
        ("GET topic=room:1&resume=last:0", {}, 400, "bad_query"),
        ("GET topic=room:1&resume=1", {}, 400, "bad_query"),
        ("GET topic=room:1&presence=1", {}, 400, "bad_query"),
        ("GET topic=room:1", {"Origin": "https://evil.example"}, 403, "origin"),
        ("GET topic=room:1&token=x", {}, 403, "token_malformed"),
        ("HEAD topic=room:1", {}, 405, "bad_method"),
        ("POST topic=room:1", {}, 405, "bad_method"),
    ],
)
async def test_bad_input_is_refused_and_harms_nobody(
    gateway: GatewayProcess, request_line: str, headers: dict[str, str], status: int, reason: str
) -> None:
    before = gateway.metric("connects_total", result="refused", reason=reason) or 0
    method, _, query = request_line.partition(" ")
    url = f"{gateway.public_url}/socket/sse?token={token('42')}&{query}"
    async with stream(gateway, "room:1") as other, httpx.AsyncClient() as client:
        await other.place()
        answer = await client.request(method, url, headers=headers)
        assert answer.status_code == status
        assert bool(answer.text) == (status == 400)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert gateway.metric("connects_total", result="refused", reason=reason) == before + 1
        async with Backend(gateway) as backend:
            await backend.publish("room:1", "said", {})
        await other.next("said")
    assert token("42")[:40] not in gateway.log()


async def test_http_1_0_has_no_chunks(gateway: GatewayProcess) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
    writer.write(f"GET /socket/sse?topic=room:1&token={token()} HTTP/1.0\r\n\r\n".encode())
    answer = await reader.read()
    assert answer.split(b"\r\n")[0].split()[1] == b"505"
    assert b"HTTP/1.1" in answer.split(b"\r\n\r\n")[1]
    writer.close()


async def test_a_page_of_another_host_asks_before(gateway: GatewayProcess) -> None:
    async with httpx.AsyncClient() as client:
        headers = {"Access-Control-Request-Headers": "authorization"}
        answer = await client.options(f"{gateway.public_url}/socket/sse", headers=headers)
    assert answer.headers["Access-Control-Allow-Headers"] == "authorization"
    assert answer.headers["Access-Control-Allow-Methods"] == "get, options"


async def test_a_stream_ends_with_its_token(gateway: GatewayProcess) -> None:
    brief = token("42", ttl=BRIEF - 10)  # beside auth.leeway_seconds
    async with stream(gateway, "room:1", token=brief) as reader:
        assert await reader.next("closed") == {"code": 4003, "reason": ""}
        await reader.ended()
    await eventually(lambda: gateway.metric("disconnects_total", code="4003") == 1)


async def test_who_is_disconnected_or_taken_off_a_topic_is_told(gateway: GatewayProcess) -> None:
    async with stream(gateway, "room:1", "room:2") as reader, Backend(gateway) as backend:
        for _ in range(2):
            await reader.place()
        await backend.delete("/v1/topics/room:1/users/42")
        assert await reader.next("closed") == {"topic": "room:1"}
        await backend.delete("/v1/users/42/sessions")
        assert await reader.next("closed") == {"code": 1001, "reason": ""}
        await reader.ended()


async def test_who_may_not_come_back_is_told_so(start_gateway: StartGateway) -> None:
    limits = {"max_per_user": 1, "when_full": "close_oldest"}
    gateway = start_gateway({"sessions": limits, "limits": {"connections": 3}})
    async with stream(gateway, "room:1") as first:
        await first.place()
        async with stream(gateway, "room:1") as second:
            await second.place()
            assert await first.next("closed") == {"topic": "room:1"}
            assert (await first.next("closed"))["code"] == 4001
            await first.ended()
            assert first.last_id == "ended"
            async with httpx.AsyncClient() as client:
                url = f"{gateway.public_url}/socket/sse?topic=room:1&token={token('42')}"
                again = await client.get(url, headers={"Last-Event-ID": first.last_id})
            assert again.status_code == 204


async def test_who_is_refused_for_now_comes_back_or_goes_elsewhere(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"limits": {"connections": 1}})
    url = f"{gateway.public_url}/socket/sse?topic=room:1&token={token('42')}"
    async with stream(gateway, "room:1") as first, httpx.AsyncClient() as client:
        await first.place()
        alone = await client.get(url)
        assert (alone.status_code, alone.headers["Content-Type"].split(";")[0]) == (
            200,
            "text/event-stream",
        )
        assert alone.text == ": refused for now: connection_limit\nretry: 5000\n\n"
        behind = await client.get(url, headers={"X-Forwarded-For": "10.0.0.1"})
        assert (behind.status_code, behind.headers["Retry-After"]) == (503, "5")


async def test_a_drain_is_the_last_event(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with (
        stream(gateway, "room:1") as alone,
        stream(gateway, "room:1", "room:2") as several,
    ):
        await alone.place()
        for _ in range(2):
            await several.place()
        async with Backend(gateway) as backend:
            await backend.post("/v1/drain", {})
            for reader in (alone, several):
                assert await reader.next("drain") == {"code": 1012}
                await reader.ended()
        await eventually(lambda: gateway.metric("connections", transport="sse") == 0)


async def test_who_stops_reading_is_closed_at_the_bound(start_gateway: StartGateway) -> None:
    bound = 200_000
    gateway = start_gateway(
        {
            "limits": {"outbound_buffer_bytes": bound, "max_message_bytes": 65536},
            "channels": CHANNELS,
        }
    )
    stopped = socket.create_connection(("127.0.0.1", gateway.public_port))
    stopped.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    topics = "topic=room:1&topic=room:2"
    request = f"GET /socket/sse?{topics}&token={token('7')} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    stopped.sendall(request.encode())
    await eventually(lambda: gateway.metric("joins_total", result="ok") == 2)
    async with stream(gateway, "room:1") as other, Backend(gateway) as backend:
        await other.place()
        published = 0
        while not gateway.metric("slow_consumers_total"):
            await backend.publish("room:1", "said", {"pad": "x" * 50_000})
            await other.next("said")
            published += 50_000
            assert published < 20_000_000
        await eventually(lambda: gateway.metric("disconnects_total", code="1013") == 1)
        await backend.publish("room:1", "said", {"n": 1})
        assert (await other.next("said"))["payload"] == {"n": 1}
    stopped.close()
