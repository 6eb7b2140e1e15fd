"""Clients that poll: who may, what they get, and how their sessions end."""

import asyncio
import base64
import gzip
import io
import json
import time
from typing import Any

import pytest

from gateway.transport.longpoll.ticket import Ticket, new_secret
from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.longpoll import NDJSON, PollClient
from tests.support.tokens import BRIEF, token
from tests.support.waiting import eventually

ROOM = "room:1"
HISTORY = {"pattern": "room:*", "push": "broadcast", "history": {"messages": 100, "seconds": 300}}


async def closed(gateway: GatewayProcess, code: int) -> None:
    """Return once a session has ended with a code."""
    await eventually(lambda: gateway.metric("disconnects_total", code=str(code)) == 1)


async def gone(client: PollClient) -> None:
    """Its session has ended, whatever it asks for."""
    assert await client.post('[null,"1","phoenix","heartbeat",{}]') == 410
    assert await client.poll() == 500


async def test_a_session_is_a_session(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with (
        PollClient(gateway, token("42"), {"device_id": "d"}) as client,
        Backend(gateway) as backend,
    ):
        assert (await client.join(ROOM))["status"] == "ok"
        _, listed = await backend.get("/v1/users/42/sessions")
        [session] = listed["items"]
        assert (session["transport"], session["protocol"]) == ("longpoll", "2.0.0")
        assert (session["device"]["id"], session["topics"]) == ("d", [ROOM])
        assert gateway.metric("connections", transport="longpoll") == 1

        await backend.publish(ROOM, "said", {"n": 1})
        await client.push(ROOM, "said", {"n": 2})
        await client.until("said")
        ref = await client.push("phoenix", "heartbeat")
        await client.until("phx_reply", ref)
        assert client.heard("said") == [{"n": 1}, {"n": 2}]

        _, _, headers = await client.request("POST", data="")
        assert headers["Cache-Control"] == "no-store"

        ref = await client.push(ROOM, "phx_leave")
        await client.until("phx_close")
        await backend.publish(ROOM, "said", {"n": 3})
        ref = await client.push("phoenix", "heartbeat")
        await client.until("phx_reply", ref)
        assert len(client.heard("said")) == 2


@pytest.mark.parametrize("place", ["query", "Authorization", "X-Phoenix-AuthToken"])
async def test_where_the_token_may_be(start_gateway: StartGateway, place: str) -> None:
    gateway = start_gateway()
    shown = f"Bearer {token('7')}" if place == "Authorization" else token("7")
    headers = {} if place == "query" else {place: shown}
    async with PollClient(
        gateway, token("7") if place == "query" else None, headers=headers
    ) as client:
        assert (await client.join(ROOM))["status"] == "ok"
        await eventually(lambda: gateway.metric("sessions") == 1)


@pytest.mark.parametrize(
    ("params", "headers", "reason"),
    [
        ({}, {}, "no_token"),
        ({"token": "x.y.z"}, {}, "token_malformed"),
        ({"token": token("7", secret="y" * 32)}, {}, "token_signature"),
        ({"token": token("7"), "device_id": "x" * 300}, {}, "device"),
        ({"token": token("7"), "vsn": "3.0.0"}, {}, "vsn"),
        ({"token": token("7")}, {"Origin": "https://evil.example"}, "origin"),
    ],
)
async def test_who_may_not_come_is_refused(
    start_gateway: StartGateway, params: dict[str, str], headers: dict[str, str], reason: str
) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, headers=headers) as client:
        client._params = [("vsn", "2.0.0")] if "vsn" not in params else []
        client._params += list(params.items())
        status, answer, _ = await client.request("GET")
        assert (status, answer) == (200, {"status": 403})
    assert gateway.metric("connects_total", result="refused", reason=reason) == 1
    assert gateway.metric("connections", transport="longpoll") == 0


async def test_a_foreign_page_cannot_use_a_session(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("7")) as client:
        await client.join(ROOM)
        for method in ("GET", "POST"):
            _, answer, _ = await client.request(method, headers={"Origin": "https://evil.example"})
            assert answer == {"status": 403}


async def test_who_is_refused_for_now_is_told_to_try_again(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"limits": {"connections": 1}})
    async with PollClient(gateway, token("7")) as first, PollClient(gateway, token("8")) as second:
        await first.join(ROOM)
        status, answer, headers = await second.request("GET")
        assert (status, answer) == (503, {"status": 500})
        assert int(headers["Retry-After"]) > 0


async def test_an_answer_that_was_lost_comes_again(start_gateway: StartGateway) -> None:
    """A load balancer that repeats a GET, a connection that breaks: each message once all the same."""
    gateway = start_gateway()
    async with PollClient(gateway, token("7")) as client, Backend(gateway) as backend:
        await client.join(ROOM)
        for number in range(6):
            await backend.publish(ROOM, "said", {"n": number})
            _, lost, _ = await client.request("GET")
            assert lost["status"] == 200
            assert await client.poll() == 200
            assert json.loads(lost["messages"][0]) == client.inbox[-1]
        assert client.heard("said") == [{"n": n} for n in range(6)]


async def test_the_newest_of_two_polls_gets_what_comes(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("7")) as client, Backend(gateway) as backend:
        await client.join(ROOM)
        polls = [asyncio.create_task(client.request("GET"))]
        for _ in range(3):
            polls.append(asyncio.create_task(client.request("GET")))
            await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            assert polls.pop(0).result()[1]["status"] == 204
        await backend.publish(ROOM, "said", {})
        assert (await polls[0])[1]["status"] == 200


async def test_silence_ends_a_session(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"limits": {"idle_timeout_seconds": 3}})
    async with PollClient(gateway, token("7")) as client:
        await client.join(ROOM)
        await closed(gateway, 1002)
        await eventually(lambda: gateway.metric("sessions") == 0)
        assert gateway.metric("connections", transport="longpoll") == 0
        await gone(client)


async def test_a_poll_that_waits_is_not_silence(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"limits": {"idle_timeout_seconds": 4}})
    async with PollClient(gateway, token("7")) as client:
        await client.join(ROOM)
        assert [await client.poll() for _ in range(2)] == [204, 204], "together longer than that"
        assert gateway.metric("sessions") == 1


async def test_who_is_thrown_out_is_told_at_once(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client, Backend(gateway) as backend:
        await client.join(ROOM)
        poll = asyncio.create_task(client.poll())
        await eventually(lambda: gateway.metric("connections", transport="longpoll") == 1)
        _, answer = await backend.delete("/v1/users/42/sessions")
        assert answer["disconnected"] == 1
        assert await poll == 500
        await closed(gateway, 1001)


async def test_a_revoked_token_ends_the_session_and_opens_none(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client, Backend(gateway) as backend:
        await client.join(ROOM)
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
        await backend.post("/v1/tokens/revoke", {"user": "42", "issued_before": now})
        assert await client.poll() == 500
        client.ticket = ""
        assert (await client.request("GET"))[1] == {"status": 403}


async def test_who_is_off_a_topic_hears_the_last_of_it(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client, Backend(gateway) as backend:
        await client.join(ROOM)
        _, answer = await backend.delete(f"/v1/topics/{ROOM}/users/42")
        assert answer["removed"] == 1
        await client.until("phx_close")


async def test_the_loser_of_a_limit_is_told_before_it_ends(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"sessions": {"max_per_user": 1, "when_full": "close_oldest"}})
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        winner = await PhoenixClient.connect(gateway.socket_url, token("42"))
        await winner.join(ROOM)
        await client.until("phx_close")
        assert await client.poll() == 500
        await winner.close()
        assert gateway.metric("disconnects_total", code="4001") == 1


async def test_a_token_that_expires_ends_the_session(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"auth": {"leeway_seconds": 0}})
    async with PollClient(gateway, token("42", ttl=BRIEF)) as client:
        await client.join(ROOM)
        while await client.poll() != 500:
            pass
        client.ticket = ""
        assert (await client.request("GET"))[1] == {"status": 403}
        assert gateway.metric("disconnects_total", code="4003") == 1


async def test_messages_above_the_limit_end_the_session(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"limits": {"max_message_bytes": 1024}})
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        big = json.dumps(["1", "2", ROOM, "said", {"x": "ü" * 400}], ensure_ascii=False)
        assert await client.post(big) == 200
        assert await client.post(big.replace("ü", "üü")) == 413
        await closed(gateway, 1009)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"x" * (3 * 1024 * 1024), 413), (b"\n" * 1000, 200), (b"", 200)],
    ids=["too large", "empty lines", "empty"],
)
async def test_bodies_of_all_sizes(start_gateway: StartGateway, body: bytes, status: int) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        assert await client.post(io.BytesIO(body)) == status
        assert await client.push("phoenix", "heartbeat") == "2"


@pytest.mark.parametrize("ticket", ["", Ticket("x" * 11, new_secret(), 0)])
async def test_who_has_no_session_is_told_before_the_body_comes(
    start_gateway: StartGateway, ticket: object
) -> None:
    gateway = start_gateway()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
    head = f"POST /socket/longpoll?token={ticket} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    writer.write(head.encode())
    answer = await reader.readuntil(b"}")
    assert answer.endswith(b'{"status":410}')
    writer.close()
    await writer.wait_closed()


async def test_a_body_that_is_no_text_is_refused(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        status, _, _ = await client.request(
            "POST", data=b'["1","2","room:1","\xff",{}]', headers={"Content-Type": NDJSON}
        )
        assert status == 400
        assert await client.poll() in (200, 204)


async def test_encoded_bodies_are_not_taken(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        for encoding in ("gzip", "deflate", "br", "identity"):
            status, _, _ = await client.request(
                "POST",
                data=gzip.compress(b"\n" * 1_000_000),
                headers={"Content-Type": NDJSON, "Content-Encoding": encoding},
            )
            assert status == 415
        assert await client.push("phoenix", "heartbeat") == "2"


async def test_batches_that_wait_for_one_user_are_bounded(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with (
        PollClient(gateway, token("42")) as client,
        PollClient(gateway, token("42")) as phone,
        PollClient(gateway, token("43")) as other,
    ):
        for each in (client, phone, other):
            await each.join(ROOM)
        writers = []
        for ticket in (client.ticket, phone.ticket) * 2:  # bodies that are on their way
            head = (
                f"POST /socket/longpoll?vsn=2.0.0&token={ticket} HTTP/1.1\r\nHost: x\r\n"
                "Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n"
            )
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.public_port)
            writer.write(head.encode())
            assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
            writers.append(writer)

        assert await client.post(b"\n" * 1_000_000) == 413
        dropped = gateway.metric("messages_dropped_total", reason="longpoll_waiting")
        assert dropped == 1
        assert await other.post(b"\n" * 1_000_000) == 200
        assert await client.push("phoenix", "heartbeat") == "2", "small ones have room"
        for writer in writers:
            writer.close()
            await writer.wait_closed()

        async def taken() -> bool:
            return await client.post(b"\n" * 1_000_000) == 200

        await eventually(taken)


async def test_a_batch_that_is_mostly_empty_lines_is_handled(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        beat = b'[null,"h","phoenix","heartbeat",{}]'
        assert await client.post(b"\n" * 500_000 + beat + b"\n" * 500_000) == 200
        assert (await client.until("phx_reply", "h"))[2] == "phoenix"


async def test_who_says_too_much_waits_and_what_is_left_is_counted(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway({"limits": {"messages_per_second": 2, "idle_timeout_seconds": 6}})
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        lines = "\n".join(f'[null,"h{n}","phoenix","heartbeat",{{}}]' for n in range(60))
        assert await client.post(lines) == 408
        answered = 0
        while await client.poll() == 200:
            answered = sum(frame[2] == "phoenix" for frame in client.inbox)
        left = gateway.metric("messages_dropped_total", reason="longpoll_timeout")
        assert left > 0
        assert answered + left == 60


async def test_what_waits_for_a_client_is_bounded(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"limits": {"outbound_buffer_bytes": 65_536}})
    async with PollClient(gateway, token("42")) as client, Backend(gateway) as backend:
        await client.join(ROOM)
        for _ in range(20):
            await backend.publish(ROOM, "said", {"x": "x" * 10_000})
        await eventually(lambda: gateway.metric("slow_consumers_total") == 1)
        statuses = [await client.poll() for _ in range(2)]
        assert statuses[-1] == 500
        await closed(gateway, 1013)


async def test_a_batch_is_handled_whole(start_gateway: StartGateway) -> None:
    """More than Phoenix's hundred lines, a mistake among them."""
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        lines = [json.dumps(["1", f"p{n}", ROOM, "said", {"n": n}]) for n in range(250)]
        lines[100] = '["1","bad"]'
        assert await client.post("\n".join(lines)) == 200
        await client.until("phx_reply", "p249")
        await client.until("said")
        while len(client.heard("said")) < 249:
            assert await client.poll() == 200
        assert [p["n"] for p in client.heard("said")] == [n for n in range(250) if n != 100]
        assert gateway.metric("malformed_frames_total") == 1


async def test_bytes_go_up_and_do_not_come_down(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    witness = await PhoenixClient.connect(gateway.socket_url, token("43"))
    await witness.join(ROOM)
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        push = bytes((0, 1, 1, len(ROOM), 4)) + b"19" + ROOM.encode() + b"blob" + b"\x00\xff"
        assert await client.post(base64.b64encode(push)) == 200
        await client.until("phx_reply", "9")
    await eventually(lambda: bool(witness.inbox) and isinstance(witness.inbox[-1], bytes))
    assert witness.inbox[-1] == b"\x02" + bytes((len(ROOM), 4)) + ROOM.encode() + b"blob\x00\xff"
    assert gateway.metric("messages_dropped_total", reason="no_binary") == 1
    await witness.close()


async def numbers(client: PollClient) -> list[int]:
    """What it has heard of."""
    return [payload["n"] for payload in client.heard("n")]


def last_position(client: PollClient) -> Any:
    """Where it stands, as the recipe of docs/resume.md keeps it."""
    marks = [f[1] for f in client.inbox if isinstance(f[1], str) and f[1].startswith("@")]
    return marks[-1]


async def test_a_client_that_polls_misses_nothing(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"channels": [HISTORY]})
    async with PollClient(gateway, token("42")) as client, Backend(gateway) as backend:
        answer = await client.join(ROOM, {"resume": None})
        assert answer["response"]["recovered"] is None
        await backend.publish(ROOM, "n", {"n": 1})
        await client.until("n")
        position = last_position(client)
        for number in range(2, 50):
            # together more than one answer carries
            await backend.publish(ROOM, "n", {"n": number, "x": "x" * 20_000})
        client.ticket = ""  # it lost its session, and what was under way there
        answer = await client.join(ROOM, {"resume": position})
        assert answer["response"]["recovered"] is True
        await backend.publish(ROOM, "n", {"n": 50})
        while 50 not in await numbers(client):
            assert await client.poll() == 200
        assert await numbers(client) == list(range(1, 51))


async def test_a_drain_sends_clients_elsewhere(start_gateway: StartGateway) -> None:
    gateway = start_gateway()
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        poll = asyncio.create_task(client.request("GET"))
        await eventually(lambda: gateway.metric("connections", transport="longpoll") == 1)
        gateway.terminate()
        for request in poll, client.request("GET"):
            _, answer, headers = await request
            assert (answer, headers["Connection"]) == ({"status": 500}, "close")
        assert await asyncio.to_thread(gateway.wait) == 0


async def test_nothing_in_the_log_opens_a_session(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"log": {"level": "debug", "format": "json"}})
    async with PollClient(gateway, token("42")) as client:
        await client.join(ROOM)
        await client.post("not json")
        secret = client.ticket.split(".")[2]
    assert secret not in gateway.full_log()
