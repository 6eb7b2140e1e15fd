"""Each deliberate difference from Phoenix: ``docs/differences.md`` names the tests here."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.transport.longpoll.ticket import Ticket, home, new_secret
from tests.conformance.wire import BINARY, CLOSE, TEXT, Wire
from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.longpoll import PollClient
from tests.support.roster import Roster
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:lobby"
DOCUMENT = (Path(__file__).parents[2] / "docs/differences.md").read_text()

Pair = tuple[Wire, Wire]


async def socket(gateway: GatewayProcess, vsn: str = "2.0.0") -> Wire:
    """A raw socket in the lobby."""
    wire = await Wire.connect(gateway.public_port, f"vsn={vsn}")
    if vsn.startswith("2"):
        wire.send(TEXT, json.dumps(["1", "1", ROOM, "phx_join", {}]).encode())
    else:
        join = {"topic": ROOM, "event": "phx_join", "payload": {}, "ref": "1"}
        wire.send(TEXT, json.dumps(join).encode())
    assert (await wire.receive()).opcode == TEXT
    return wire


def refusal(ref: str, topic: object, reason: str, join_ref: str | None = None) -> list[object]:
    """An error reply of version 2, decoded."""
    return [join_ref, ref, topic, "phx_reply", {"status": "error", "response": {"reason": reason}}]


async def test_malformed_frames_are_answered_and_counted(loud: GatewayProcess) -> None:
    wire = await socket(loud)
    before = loud.metric("malformed_frames_total")
    wire.send(TEXT, b'["1","7","room:lobby"]')
    assert (await wire.receive()).value == refusal("7", ROOM, "malformed")
    for noise in (b"not json", b"", b"null", b'{"topic":"room:lobby"}', b'["1"]'):
        wire.send(TEXT, noise)
    wire.send(BINARY, bytes.fromhex("0100000000"))
    wire.send(BINARY, bytes.fromhex("000505"))
    wire.send(TEXT, b'[null,"8","phoenix","heartbeat",{}]')
    assert (await wire.receive()).value[1] == "8"
    assert loud.metric("malformed_frames_total") == before + 8

    wire.send(TEXT, b"nine")
    wire.send(TEXT, b"ten")

    end = await wire.receive()
    assert (end.opcode, end.value) == (CLOSE, 1008)
    await wire.close()


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128])
async def test_long_names_are_malformed(loud: GatewayProcess, name: str) -> None:
    wire = await socket(loud)
    wire.send(TEXT, json.dumps(["2", "2", name, "phx_join", {}]).encode())
    wire.send(TEXT, json.dumps(["1", "3", ROOM, name, {}]).encode())

    assert (await wire.receive()).value == refusal("2", name, "malformed")
    assert (await wire.receive()).value == refusal("3", ROOM, "malformed")
    await wire.close()


async def test_topics_that_are_no_strings_are_unmatched(loud: GatewayProcess) -> None:
    wire = await socket(loud)
    for ref, event in (("2", "phx_join"), ("3", "phx_leave"), ("4", "shout")):
        wire.send(TEXT, json.dumps([ref, ref, 5, event, {}]).encode())
        assert (await wire.receive()).value == refusal(ref, 5, "unmatched topic")
    await wire.close()


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_a_leave_needs_no_join_ref(loud: GatewayProcess, vsn: str) -> None:
    wire = await Wire.connect(loud.public_port, f"vsn={vsn}")
    for ref, join_ref, event in (("1", "1", "phx_join"), ("2", None, "phx_leave")):
        fields: Any = {"topic": ROOM, "event": event, "payload": {}, "ref": ref}
        fields["join_ref"] = join_ref
        message: Any = fields if vsn == "1.0.0" else [join_ref, ref, ROOM, event, {}]
        wire.send(TEXT, json.dumps(message).encode())
    heard = [(await wire.receive()).value for _ in range(3)]
    events = [each["event"] if vsn == "1.0.0" else each[3] for each in heard]
    assert events == ["phx_reply", "phx_reply", "phx_close"]
    await wire.close()


@pytest.mark.parametrize("vsn", ["1.0.0", "2.0.0"])
async def test_what_is_for_an_earlier_join_is_not_heeded(loud: GatewayProcess, vsn: str) -> None:
    before = loud.metric("messages_dropped_total", reason="stale_join_ref")
    wire = await socket(loud, vsn)
    sent = [
        ("5", "5", "phx_join"),
        ("1", "6", "shout"),
        ("1", "7", "phx_leave"),
        ("5", "8", "last"),
    ]
    for join_ref, ref, event in sent:
        fields = {"topic": ROOM, "event": event, "payload": {}, "ref": ref, "join_ref": join_ref}
        message: Any = fields if vsn == "1.0.0" else [join_ref, ref, ROOM, event, {}]
        wire.send(TEXT, json.dumps(message).encode())
    heard = [(await wire.receive()).value for _ in range(4)]
    refs = [each["ref"] if vsn == "1.0.0" else each[1] for each in heard]
    assert {"6", "7"}.isdisjoint(refs)
    assert refs[0] == "5"
    assert set(refs[2:]) == {"8", None}, "the reply and the echo of the last"
    assert loud.metric("messages_dropped_total", reason="stale_join_ref") == before + 2
    await wire.close()


async def test_a_binary_push_needs_no_join_ref(loud: GatewayProcess) -> None:
    wire = await socket(loud)
    wire.send(BINARY, bytes((0, 0, 1, 10, 5)) + b"7room:lobbyshout!")
    heard = [(await wire.receive()) for _ in range(2)]
    assert {frame.opcode for frame in heard} == {TEXT, BINARY}
    await wire.close()


async def test_a_leave_waits_for_answers_and_not_for_copies(start_gateway: StartGateway) -> None:
    history = {"messages": 10, "seconds": 60}
    kept = {"pattern": "kept:*", "join": "anyone", "push": "broadcast", "history": history}
    plain = {"pattern": "room:*", "join": "anyone", "push": "broadcast"}
    gateway = start_gateway({"auth": {"allow_anonymous": True}, "channels": [kept, plain]})
    for topic in (ROOM, "kept:1"):
        wire = await Wire.connect(gateway.public_port, "vsn=2.0.0")
        for ref, event in (("1", "phx_join"), ("2", "shout"), ("3", "phx_leave")):
            wire.send(TEXT, json.dumps(["1", ref, topic, event, {}]).encode())
        heard = [(await wire.receive()).value for _ in range(4)]
        replies = [message[1] for message in heard if message[3] == "phx_reply"]
        assert replies == ["1", "2", "3"]
        assert heard[-1][3] == "phx_close", "and no copy of the shout"
        await wire.close()


async def test_what_waits_for_a_join_is_bounded(
    start_gateway: StartGateway, start_nats: StartNats
) -> None:
    nats = start_nats()
    gateway = start_gateway({"bus": {"url": nats.url}})
    nats.pause()
    wire = await Wire.connect(gateway.public_port, f"vsn=2.0.0&token={token()}")
    wire.send(TEXT, json.dumps(["1", "1", ROOM, "phx_join", {}]).encode())
    for ref in range(1025):
        wire.send(TEXT, json.dumps(["1", str(ref), ROOM, "shout", {}]).encode())
    first = (await wire.receive()).value
    assert first == refusal(first[1], ROOM, "rate limited", "1")
    assert 1000 < int(first[1]) <= 1024
    nats.resume()
    await wire.close()


async def test_long_refs_are_malformed(loud: GatewayProcess) -> None:
    wire = await socket(loud)
    before = loud.metric("malformed_frames_total")
    long, fits = "j" * 254, "j" * 253
    wire.send(TEXT, json.dumps([long, "2", "room:2", "phx_join", {}]).encode())
    wire.send(TEXT, json.dumps([None, long, "phoenix", "heartbeat", {}]).encode())
    wire.send(TEXT, json.dumps([fits, fits, "room:2", "phx_join", {}]).encode())

    assert (await wire.receive()).value == refusal("2", "room:2", "malformed")
    reply = refusal("", "phoenix", "malformed")
    reply[1] = None
    assert (await wire.receive()).value == reply
    assert (await wire.receive()).value[:2] == [fits, fits]
    assert loud.metric("malformed_frames_total") == before + 2
    await wire.close()


@pytest.mark.parametrize("event", ["phx_close", "phx_error", "phx_reply", "chan_reply_1"])
async def test_reserved_events_are_refused(loud: GatewayProcess, event: str) -> None:
    wire = await socket(loud)
    wire.send(TEXT, json.dumps(["1", "2", ROOM, event, {}]).encode())
    wire.send(TEXT, json.dumps(["1", "3", ROOM, "phx_leave", {}]).encode())

    assert (await wire.receive()).value == refusal("2", ROOM, "push not allowed", "1")
    assert (await wire.receive()).value[4]["status"] == "ok", "the channel lives"
    await wire.close()


async def test_live_is_for_backends(loud: GatewayProcess) -> None:
    client = await PhoenixClient.connect(loud.socket_url, token("42"))
    await client.join(ROOM)
    html = {"target": "list", "action": "append", "html": "<img src=x onerror=alert(1)>"}
    refused = await client.ask(ROOM, "live", html)
    async with Backend(loud) as backend:
        assert await backend.publish(ROOM, "live", html) == 202

    assert refused[4] == {"status": "error", "response": {"reason": "push not allowed"}}
    assert (await client.expect(lambda frame: frame[3] == "live"))[4] == html
    await client.close()


async def test_access_token_refreshes_the_socket(loud: GatewayProcess) -> None:
    client = await PhoenixClient.connect(loud.socket_url, token("42"))
    await client.join(ROOM)
    for topic, join_ref in ((ROOM, "1"), ("phoenix", None)):
        reply = await client.ask(topic, "access_token", {"access_token": token("42")})
        assert reply[0] == join_ref
        assert reply[4] == {"status": "ok", "response": {}}
        reply = await client.ask(topic, "access_token", {"access_token": token("43")})
        assert reply[4] == {"status": "error", "response": {"reason": "unauthorized"}}
    assert client.events(ROOM, "access_token") == [], "it goes no further"
    await client.close()


@pytest.mark.parametrize("payload", ["text", [1], None, 1])
async def test_payloads_of_broadcasts_are_objects(loud: GatewayProcess, payload: object) -> None:
    wire = await socket(loud)
    wire.send(TEXT, json.dumps(["1", "2", ROOM, "shout", payload]).encode())
    assert (await wire.receive()).value == refusal("2", ROOM, "malformed", "1")
    async with Backend(loud) as backend:
        assert await backend.publish(ROOM, "shout", payload) == 422
        assert (await backend.post("/v1/publish", {"topic": ROOM, "event": "shout"}))[0] == 422
    await wire.close()


async def test_binary_broadcasts_are_not_for_version_1(loud: GatewayProcess) -> None:
    before = loud.metric("messages_dropped_total", reason="no_binary")
    new, old = await socket(loud), await socket(loud, "1.0.0")
    new.send(BINARY, bytes.fromhex("0001010a053132726f6f6d3a6c6f62627973686f75740102"))
    new.flush()
    await eventually(
        lambda: loud.metric("messages_dropped_total", reason="no_binary") == before + 1
    )
    async with Backend(loud) as backend:
        await backend.publish(ROOM, "text", {})

    received = await old.receive()
    assert (received.opcode, received.value["event"]) == (TEXT, "text")
    await new.close()
    await old.close()


async def test_rules_answer_pushes(loud: GatewayProcess) -> None:
    client = await PhoenixClient.connect(loud.socket_url)
    await client.join(ROOM)

    assert (await client.ask(ROOM, "anything", {"x": 1}))[4] == {"status": "ok", "response": {}}
    assert (await client.expect(lambda f: f[3] == "anything"))[4] == {"x": 1}
    await client.close()


async def test_the_idle_timeout_is_longer(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"limits": {"idle_timeout_seconds": 1}})
    client = await PhoenixClient.connect(gateway.socket_url, token())

    assert await client.closed() == 1002
    default = (Path(__file__).parents[2] / "config/gateway.toml").read_text()
    assert re.search(r"^#? ?idle_timeout_seconds = 90", default, re.MULTILINE)


async def test_outbound_data_is_bounded(start_gateway: StartGateway) -> None:
    gateway = start_gateway(
        {"limits": {"outbound_buffer_bytes": 65536}, "auth": {"allow_anonymous": True},
         "channels": [{"pattern": "*", "join": "anyone"}]}
    )  # fmt: skip
    wire = await socket(gateway)
    async with Backend(gateway) as backend:
        for _ in range(2000):
            await backend.publish(ROOM, "bulk", {"x": "x" * 16384})
            if gateway.metric("slow_consumers_total"):
                break
    while (frame := await wire.receive()).opcode == TEXT:
        pass

    assert (frame.opcode, frame.value) == (CLOSE, 1013)
    await wire.close()


async def test_an_undecodable_subprotocol_token_is_403(loud: GatewayProcess) -> None:
    for text in ("%%%", base64.b64encode(b"\xff\xfe").decode().rstrip("=")):
        offer = f"Sec-WebSocket-Protocol: phoenix, base64url.bearer.phx.{text}"
        wire = await Wire.connect(loud.public_port, "vsn=2.0.0", offer)
        assert wire.status == 403
        await wire.close()


async def test_heartbeats_pass_a_join_that_waits(
    start_gateway: StartGateway, start_nats: StartNats
) -> None:
    nats = start_nats()
    gateway = start_gateway({"bus": {"url": nats.url}})
    client = await PhoenixClient.connect(gateway.socket_url, token())
    nats.pause()
    await client.send_frame("1", "join", ROOM, "phx_join", {})

    assert (await client.heartbeat())[4]["status"] == "ok"
    assert all(frame[1] != "join" for frame in client.inbox)
    nats.resume()
    assert (await client.reply("join"))[4]["status"] == "ok"
    await client.close()


async def test_new_sockets_are_refused_while_draining(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"drain": {"delay_seconds": 30}})
    gateway.terminate()
    await eventually(lambda: gateway.get("/readyz")[0] == 503)
    wire = await Wire.connect(gateway.public_port, f"vsn=2.0.0&token={token()}")
    await wire.close()

    assert wire.status == 503
    assert wire.header("Retry-After") is not None


async def test_replies_are_compact(loud: GatewayProcess) -> None:
    wire = await Wire.connect(loud.public_port, "vsn=2.0.0")
    wire.send(TEXT, b'[ "1", "1", "room:lobby", "phx_join", {} ]')

    expected = b'["1","1","room:lobby","phx_reply",{"status":"ok","response":{}}]'
    assert (await wire.receive()).data == expected
    await wire.close()


@pytest.mark.parametrize(
    ("offer", "status", "selected"),
    [
        (None, 101, None),
        ("phoenix", 101, "phoenix"),
        ("other", 403, None),
        ("phoenix, other", 101, "phoenix"),
        ("TOKEN", 101, None),
        ("phoenix, TOKEN", 101, "phoenix"),
        ("TOKEN, phoenix", 101, "phoenix"),
        ("other, TOKEN", 403, None),
        ("phoenix, base64url.bearer.phx.", 101, "phoenix"),
    ],
)
async def test_subprotocols_are_selected_as_by_phoenix(
    loud: GatewayProcess, offer: str | None, status: int, selected: str | None
) -> None:
    """No difference, but the capture has only one of these: see ``Phoenix.Socket.Transport``."""
    bearer = "base64url.bearer.phx." + base64.b64encode(token().encode()).decode().rstrip("=")
    headers = (
        () if offer is None else (f"Sec-WebSocket-Protocol: {offer.replace('TOKEN', bearer)}",)
    )
    wire = await Wire.connect(loud.public_port, "vsn=2.0.0", *headers)
    await wire.close()

    assert wire.status == status
    assert wire.header("Sec-WebSocket-Protocol") == selected


PRESENCE = {
    "channels": [{"pattern": "room:*", "join": "anyone", "presence": True}],
    "auth": {"allow_anonymous": True},
    "presence": {"gather_milliseconds": 400},
}


async def test_presence_is_tracked_by_the_rule(start_gateway: StartGateway) -> None:
    gateway = start_gateway(PRESENCE)
    stranger = await PhoenixClient.connect(gateway.socket_url)
    await stranger.join(ROOM)
    ann = await PhoenixClient.connect(gateway.socket_url, token("ann", presence={"name": "Ann"}))
    await ann.join(ROOM)
    assert (await ann.ask(ROOM, "presence_update", {"away": True}))[4]["status"] == "ok"
    assert (await stranger.ask(ROOM, "presence_update", {}))[4]["status"] == "error"
    roster = Roster(stranger, ROOM)

    await eventually(lambda: any("away" in meta for _, meta in roster.updated().values()))
    [(user, meta)] = roster.metas.values()
    assert user == "ann"
    assert meta.keys() == {"phx_ref", "phx_ref_prev", "online_at", "name", "away"}
    for client in (stranger, ann):
        await client.close()


async def test_diffs_of_a_busy_topic_are_gathered(start_gateway: StartGateway) -> None:
    gateway, members = start_gateway(PRESENCE), 40
    first = await PhoenixClient.connect(gateway.socket_url, token("first"))
    await first.join(ROOM)
    roster = Roster(first, ROOM)
    await eventually(lambda: roster.users() == {"first"})
    others = [
        await PhoenixClient.connect(gateway.socket_url, token(f"u{n}")) for n in range(members)
    ]
    for other in others:
        await other.join(ROOM)
    await eventually(lambda: len(roster.users()) == members + 1)

    diffs = first.events(ROOM, "presence_diff")
    assert len(diffs) < members / 2
    for number, other in enumerate(others):
        await eventually(lambda other=other: other.events(ROOM, "presence_state"))
        assert f"u{number}" in other.events(ROOM, "presence_state")[0]
    for client in (first, *others):
        await client.close()


@pytest.fixture
async def poller(polled: GatewayProcess) -> AsyncIterator[PollClient]:
    """A client that polls, in the lobby."""
    async with PollClient(polled) as client:
        await client.join(ROOM)
        yield client


async def test_answers_to_polls_that_were_lost_come_again(
    polled: GatewayProcess, poller: PollClient
) -> None:
    async with Backend(polled) as backend:
        await backend.publish(ROOM, "said", {"n": 1})
    _, lost, _ = await poller.request("GET")
    assert len(lost["messages"]) == 1

    assert await poller.poll() == 200
    assert poller.heard("said") == [{"n": 1}]


async def test_a_poll_of_a_session_that_is_gone_is_a_failure(polled: GatewayProcess) -> None:
    before = polled.metric("connects_total", result="ok")
    ticket = str(Ticket(home("r"), new_secret(), 1))
    async with PollClient(polled) as client:
        client.ticket = ticket
        assert await client.poll() == 500
        assert client.ticket == ticket
    assert polled.metric("connects_total", result="ok") == before


async def test_batches_are_taken_line_by_line(polled: GatewayProcess, poller: PollClient) -> None:
    before = polled.metric("malformed_frames_total")
    lines = [f'[null,"{n}","phoenix","heartbeat",{{}}]' for n in range(120)]
    assert await poller.post("\n".join(["not json", *lines, "", ""])) == 200
    await poller.until("phx_reply", "119")
    assert polled.metric("malformed_frames_total") == before + 1

    async with PollClient(polled, params={"vsn": "1.0.0"}) as old:
        assert await old.poll() == 410
        assert (
            await old.post('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}') == 200
        )
        _, answer, _ = await old.request("GET")
        assert json.loads(answer["messages"][0])["ref"] == "1"


async def test_bytes_are_not_put_into_json(polled: GatewayProcess, poller: PollClient) -> None:
    before = polled.metric("messages_dropped_total", reason="no_binary")
    push = bytes((0, 1, 1, len(ROOM), 4)) + b"19" + ROOM.encode() + b"blob" + b"\x01"
    assert await poller.post(base64.b64encode(push)) == 200

    reply = await poller.until("phx_reply", "9")
    assert reply == ["1", "9", ROOM, "phx_reply", {"status": "ok", "response": {}}]
    await eventually(lambda: polled.metric("messages_dropped_total", reason="no_binary") > before)


async def test_polls_are_refused_for_now_with_503(start_gateway: StartGateway) -> None:
    gateway = start_gateway({"limits": {"connections": 1}})
    async with PollClient(gateway, token("1")) as first, PollClient(gateway, token("2")) as second:
        await first.join(ROOM)
        status, answer, headers = await second.request("GET")
    assert (status, answer, "Retry-After" in headers) == (503, {"status": 500}, True)


async def test_polls_that_are_of_no_use_end_at_once(
    polled: GatewayProcess, poller: PollClient
) -> None:
    older = asyncio.create_task(poller.request("GET"))
    newer = asyncio.create_task(poller.request("GET"))
    await asyncio.wait((older, newer), return_when=asyncio.FIRST_COMPLETED)
    async with Backend(polled) as backend:
        await backend.publish(ROOM, "said", {})
    answers = await asyncio.gather(older, newer)
    assert {answer["status"] for _, answer, _ in answers} == {204, 200}


def test_every_difference_has_its_test() -> None:
    named = set(re.findall(r"\| `([a-z0-9_]+)` \|$", DOCUMENT, re.MULTILINE))
    rows = DOCUMENT.count("\n|") - 2

    assert len(named) == rows
    for name in named:
        assert f"test_{name}" in globals(), name
