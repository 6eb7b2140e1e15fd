"""A backend decides who connects, who joins, and what a push means: a real gateway calls a real server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import psutil
import pytest
from aiohttp import web
from cloudevents.http import from_http
from standardwebhooks.webhooks import Webhook
from websockets.exceptions import InvalidStatus

from tests.conftest import StartGateway
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.upstream import SECRET, Answer, UpstreamServer, says, slowly
from tests.support.waiting import eventually

ROOM = "room:1"
CHANNELS = [
    {"pattern": "room:*", "join": "upstream", "push": "upstream", "presence": True},
    {"pattern": "quiet:*", "join": "upstream", "push": "upstream", "echo": False},
    {"pattern": "user:{sub}", "join": "upstream"},
    {"pattern": "plain:*", "push": "broadcast"},
    {"pattern": "team:{team}", "join": "upstream", "push": "upstream"},
]
JOIN, PUSH, CONNECT = "gateway.join", "gateway.push", "gateway.connect"

Start = Callable[..., Awaitable[GatewayProcess]]
Connect = Callable[..., Awaitable[PhoenixClient]]


@pytest.fixture
async def upstream() -> AsyncIterator[UpstreamServer]:
    """A backend."""
    async with UpstreamServer() as server:
        yield server


@pytest.fixture
def start(start_gateway: StartGateway, upstream: UpstreamServer) -> Callable[..., GatewayProcess]:
    """Starts gateways that call it; keyword arguments go to ``[upstream]`` or replace sections."""

    def started(**more: Any) -> GatewayProcess:
        sections = {name: more.pop(name) for name in list(more) if isinstance(more[name], dict)}
        config = {"channels": CHANNELS, "upstream": upstream.section(**more)}
        return start_gateway(config | sections)

    return started


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Opens sockets and closes them after the test."""
    clients: list[PhoenixClient] = []

    async def opened(
        gateway: GatewayProcess, user: str | None = "42", **options: Any
    ) -> PhoenixClient:
        signed = None if user is None else token(user, **options.pop("claims", {}))
        clients.append(await PhoenixClient.connect(gateway.socket_url, signed, **options))
        return clients[-1]

    yield opened
    await asyncio.gather(*(client.close() for client in clients))


def response(reply: list[Any]) -> tuple[str, Any]:
    """Status and response of a reply."""
    return reply[4]["status"], reply[4]["response"]


async def test_callbacks_are_signed_cloudevents(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client = await connect(
        start(),
        "Zoë",
        params={"device_id": "d1", "device_type": "phone"},
        additional_headers={"traceparent": parent, "ce-subject": "admin", "webhook-id": "forged"},
    )
    await client.join(ROOM, {"from": 7})
    await client.ask(ROOM, "say", {"text": "grüß Gott"})

    joined, pushed = upstream.calls
    for call in (joined, pushed):
        Webhook(SECRET).verify(call.raw, call.headers)
        event = from_http(call.headers, call.raw)
        assert unquote(event["subject"]) == "Zoë"
        assert event["type"] == call.type == call.body["type"]
        assert event["id"] == call.headers["webhook-id"] != "forged"
        assert call.headers["traceparent"] == parent
        assert "authorization" not in call.headers
    assert joined.body == {
        "type": JOIN,
        "session": joined.body["session"],
        "user": "Zoë",
        "device": {"id": "d1", "type": "phone"},
        "state": None,
        "topic": ROOM,
        "params": {"from": 7},
    }
    assert pushed.body == {
        "type": PUSH,
        "session": joined.body["session"],
        "user": "Zoë",
        "device": {"id": "d1", "type": "phone"},
        "state": None,
        "topic": ROOM,
        "event": "say",
        "payload": {"text": "grüß Gott"},
    }


async def test_the_backend_admits_and_refuses(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start()
    client = await connect(gateway)
    for answer, expected in (
        (says({"response": {"title": "General"}}), ("ok", {"title": "General"})),
        (says({}), ("ok", {})),
        (lambda _: web.Response(status=204), ("ok", {})),
        (says({"reason": "not a member"}, 403), ("error", {"reason": "not a member"})),
        (says({"reason": "gone", "more": 1}, 410), ("error", {"reason": "gone", "more": 1})),
        (says({}, 401), ("error", {"reason": "unauthorized"})),
        (lambda _: web.Response(status=404, text="<html>"), ("error", {"reason": "unauthorized"})),
    ):
        upstream.answers[JOIN] = answer
        assert response(await client.join(ROOM)) == expected
    assert gateway.metric("joins_total", result="upstream refused") == 4
    # what the pattern does not let through is no question for the backend
    before = len(upstream.calls)
    assert response(await client.join("user:7")) == ("error", {"reason": "unauthorized"})
    assert len(upstream.calls) == before
    # the gateway's own keys win
    upstream.answers[JOIN] = says({"response": {"session": "forged", "more": 1}})
    status, answer_ = response(await client.join("user:42"))
    assert status == "ok"
    assert answer_["more"] == 1
    assert answer_["session"] == upstream.calls[-1].body["session"]


async def test_what_the_backend_says_is_shown_in_presence(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    upstream.answers[JOIN] = says({"presence": {"role": "host", "name": "A", "phx_ref": "x"}})
    client = await connect(start(), claims={"presence": {"name": "token", "team": "red"}})
    await client.join(ROOM)

    def shown(meta: dict[str, Any], wanted: dict[str, Any]) -> bool:
        return {name: meta.get(name) for name in wanted} == wanted and meta["phx_ref"] != "x"

    def told(wanted: dict[str, Any]) -> Callable[[list[Any]], bool]:
        def holds(frame: list[Any]) -> bool:
            users = frame[4].get("joins", frame[4]) if frame[3].startswith("presence_") else {}
            return any(shown(meta, wanted) for each in users.values() for meta in each["metas"])

        return holds

    await client.expect(told({"role": "host", "name": "A", "team": "red"}))
    await client.ask(ROOM, "presence_update", {"name": "mine"})
    await client.expect(told({"role": "host", "name": "mine", "team": "red"}))
    upstream.answers[JOIN] = says({"presence": {"x": "y" * 2000}})
    assert response(await client.join("room:2")) == ("error", {"reason": "payload too large"})


async def test_pushes_are_answered_and_broadcast_in_the_backends_words(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start()
    alice, bob = await connect(gateway, "alice"), await connect(gateway, "bob")
    for client in (alice, bob):
        await client.join(ROOM)
        await client.join("quiet:1")
    raw = '{"n": 1.50,  "k":"\\u00e9"}'
    upstream.answers[PUSH] = lambda body: web.Response(
        body=f'{{"response": {{"id": 7}}, "broadcast": [{{"event": "said", "payload": {raw}}}]}}'
        if body["event"] == "say"
        else '{"broadcast": [{"event": "phx_close", "payload": {}}, {"event": "b", "payload": {}}]}',
        content_type="application/json",
    )

    assert response(await alice.ask(ROOM, "say")) == ("ok", {"id": 7})
    for client in (alice, bob):
        await client.expect(lambda frame: frame[3] == "said" and frame[4] == {"n": 1.5, "k": "é"})
    assert response(await alice.ask("quiet:1", "say")) == ("ok", {"id": 7})
    await bob.expect(lambda frame: frame[2] == "quiet:1" and frame[3] == "said")
    assert alice.events("quiet:1", "said") == [], "no echo"
    assert response(await alice.ask(ROOM, "forge")) == ("ok", {})
    await bob.expect(lambda frame: frame[3] == "b")
    assert bob.events(ROOM, "phx_close") == []
    assert gateway.metric("messages_dropped_total", reason="reserved_event") == 1
    upstream.answers[PUSH] = says({"errors": {"text": ["is empty"]}}, 422)
    assert response(await alice.ask(ROOM, "say")) == ("error", {"errors": {"text": ["is empty"]}})
    upstream.answers[PUSH] = lambda _: web.Response(status=204)
    assert response(await alice.ask(ROOM, "say")) == ("ok", {})


@pytest.mark.parametrize("first", [True, False])
async def test_who_is_removed_while_the_backend_decides_does_not_get_in(
    first: bool, start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    """The backend may have looked its members up before it removed one."""
    gateway = start()
    client = await connect(gateway, "bob")
    if not first:
        await client.join("user:bob")
    decide = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.StreamResponse:
        await decide.wait()
        return web.json_response({})

    upstream.answers[JOIN] = answer
    joining = asyncio.create_task(client.join(ROOM))
    await eventually(lambda: any(call.body["topic"] == ROOM for call in upstream.calls))
    async with Backend(gateway) as backend:
        removed = await backend.delete("/v1/topics/room:1/users/bob")
    decide.set()

    assert removed[1]["removed"] == 1
    assert response(await joining) == ("error", {"reason": "unauthorized"})
    assert gateway.metric("joins_total", result="unauthorized") == 1
    assert (await client.ask(ROOM, "say"))[4]["response"] == {"reason": "unmatched topic"}


async def test_state_goes_back_and_forth_and_is_bounded(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    client = await connect(start(max_state_bytes=64))
    upstream.answers[JOIN] = says({"state": {"count": 0, "big": 12345678901234567890}})
    upstream.answers[PUSH] = lambda body: web.json_response(
        {"state": {"count": body["state"]["count"] + 1}}
    )
    await client.join(ROOM)
    for _ in range(3):
        await client.ask(ROOM, "count")
    await client.join("plain:1")
    upstream.answers[PUSH] = says({"state": "x" * 80})
    assert response(await client.ask(ROOM, "count")) == (
        "error",
        {"reason": "upstream unavailable"},
    )
    upstream.answers[PUSH] = says({})
    await client.ask(ROOM, "count")

    states = [body["state"] for body in upstream.of(PUSH)]
    assert states == [
        {"count": 0, "big": 12345678901234567890},
        {"count": 1},
        {"count": 2},
        {"count": 3},
        {"count": 3},
    ]
    other = await connect(start(), "43")
    await other.join(ROOM)
    assert upstream.calls[-1].body["state"] is None, "each session has its own"


async def test_callbacks_of_a_socket_come_one_at_a_time_in_order_of_arrival(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    client = await connect(start())
    under_way = most = 0

    async def answer(body: dict[str, Any]) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return web.json_response({"response": {"n": (body.get("payload") or {}).get("n")}})

    upstream.answers |= {JOIN: answer, PUSH: answer}
    await client.join(ROOM)
    await client.join("room:2")
    refs = [await client.push((ROOM, "room:2")[n % 2], "say", {"n": n}) for n in range(20)]
    for n, ref in enumerate(refs):
        assert response(await client.reply(ref)) == ("ok", {"n": n})
    assert [body["payload"]["n"] for body in upstream.of(PUSH)] == list(range(20))
    assert most == 1


async def test_a_client_that_pushes_faster_than_the_backend_answers_is_told_so(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start(timeout_seconds=30)
    go_on = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.StreamResponse:
        await go_on.wait()
        return web.json_response({})

    client = await connect(gateway)
    await client.join(ROOM)
    upstream.answers[PUSH] = answer
    refs = [await client.push(ROOM, "say", {"n": n}) for n in range(100)]
    assert response(await client.reply(refs[-1])) == ("error", {"reason": "rate limited"})
    await client.heartbeat()
    go_on.set()
    answers = [response(await client.reply(ref))[0] for ref in refs]
    assert answers == ["ok"] * 64 + ["error"] * 36


async def test_what_was_pushed_before_the_lid_was_closed_reaches_the_backend(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    client = await connect(start())
    await client.join(ROOM)
    upstream.answers[PUSH] = slowly(0.05, says({}))
    for n in range(5):
        await client.push(ROOM, "say", {"n": n})
    await client.close()

    await eventually(lambda: [b["payload"]["n"] for b in upstream.of(PUSH)] == list(range(5)))


async def test_what_was_pushed_before_a_drain_reaches_the_backend(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start()
    client = await connect(gateway)
    await client.join(ROOM)
    upstream.answers[PUSH] = slowly(0.1, says({}))
    for n in range(5):
        await client.push(ROOM, "say", {"n": n})
    await client.heartbeat()
    gateway.terminate()
    assert await asyncio.to_thread(gateway.wait) == 0

    assert [body["payload"]["n"] for body in upstream.of(PUSH)] == list(range(5))
    assert "pushes dropped" not in gateway.log()


async def test_a_backend_that_does_not_answer_cannot_hold_up_the_exit(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    never = 60.0  # longer than the test waits for the exit
    gateway = start(timeout_seconds=never, events=["session.ended"])
    client = await connect(gateway)
    await client.join(ROOM)
    upstream.answers |= {
        PUSH: slowly(never, says({})),
        "gateway.session.ended": slowly(never, says({})),
    }
    for n in range(3):
        await client.push(ROOM, "say", {"n": n})
    await client.heartbeat()
    gateway.terminate()
    assert await asyncio.to_thread(gateway.wait, 30) == 0

    dropped = {
        line["event"]: line.get("pushes", line.get("events"))
        for line in gateway.log_lines()
        if line["event"].endswith("dropped")
    }
    assert dropped == {"pushes dropped": 3, "events dropped": 1}


@pytest.mark.parametrize("way", ["removed", "removed later", "revoked", "refreshed"])
async def test_what_waits_of_a_user_who_was_thrown_out_does_not_reach_the_backend(
    way: str, start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    """To the backend, which has just removed her, it would look as if she were still there."""
    gateway = start()
    client = await connect(gateway, claims={"team": "red"})
    witness = await connect(gateway, "43")
    for topic in ("team:red", ROOM):
        assert response(await client.join(topic))[0] == "ok"
    await witness.join(ROOM)
    go_on = asyncio.Event()

    async def answer(body: dict[str, Any]) -> web.StreamResponse:
        if body["user"] == "42":
            await go_on.wait()
        return web.Response(status=204)

    upstream.answers[PUSH] = answer
    for n in range(3):
        await client.push("team:red", "say", {"n": n})
    await eventually(lambda: bool(upstream.of(PUSH)))
    async with Backend(gateway) as backend:
        if way == "removed":
            done = await backend.delete("/v1/topics/team:red/users/42")
            assert done[1]["removed"] == 1
        elif way == "removed later":
            await client.close()
            await eventually(lambda: gateway.metric("connections", transport="websocket") == 1)
            done = await backend.delete("/v1/topics/team:red/users/42")
            assert done[1]["removed"] == 0
        elif way == "revoked":
            done = await backend.post("/v1/tokens/revoke", {"user": "42"})
            assert done[1]["disconnected"] == 1
        else:
            fresh = {"access_token": token("42", team="blue")}
            assert response(await client.ask("phoenix", "access_token", fresh)) == ("ok", {})
    stays = way in ("removed", "refreshed")
    last = await client.push(ROOM, "last") if stays else None
    go_on.set()
    if last is not None:
        assert response(await client.reply(last)) == ("ok", {})
    await eventually(lambda: gateway.metric("messages_dropped_total", reason="not_member") == 2)
    assert [body["topic"] for body in upstream.of(PUSH)] == ["team:red"] + [ROOM] * stays


async def test_what_waits_for_the_backend_is_bounded(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    go_on = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(status=204)

    client = await connect(start())
    await client.join(ROOM)
    upstream.answers[PUSH] = answer
    for n in range(10):
        await client.send_frame(None, f"{n}", ROOM, "say", {"body": "x" * 60_000})
    refused = await client.reply("9")
    assert response(refused) == ("error", {"reason": "rate limited"})
    go_on.set()


async def test_a_join_that_a_new_token_forbids_leaves_no_session(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start()
    client = await connect(gateway, claims={"team": "red"})
    decide = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.StreamResponse:
        await decide.wait()
        return web.Response(status=204)

    upstream.answers[JOIN] = answer
    joining = asyncio.create_task(client.join("team:red"))
    await eventually(lambda: bool(upstream.of(JOIN)))
    fresh = {"access_token": token("42", team="blue")}
    assert response(await client.ask("phoenix", "access_token", fresh)) == ("ok", {})
    decide.set()

    assert response(await joining) == ("error", {"reason": "unauthorized"})
    async with Backend(gateway) as backend:
        assert (await backend.get("/v1/users/42"))[1]["sessions"] == 0


async def test_room_for_a_client_is_looked_for_once_the_backend_has_answered(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start(events=["connect"], limits={"connections": 1})
    go_on = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(status=204)

    upstream.answers[CONNECT] = answer
    both = asyncio.gather(*(connect(gateway, user) for user in "12"), return_exceptions=True)
    await eventually(lambda: len(upstream.of(CONNECT)) == 2)
    go_on.set()

    statuses = [each.response.status_code for each in await both if isinstance(each, InvalidStatus)]
    assert statuses == [503]
    assert gateway.metric("connects_total", result="refused", reason="connection_limit") == 1


@pytest.mark.parametrize("revoked", ["42", "ann"])
async def test_a_user_the_backend_named_is_revoked_by_either_name(
    revoked: str, start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start(events=["connect"])
    upstream.answers[CONNECT] = says({"user": "ann"})
    client = await connect(gateway, "42")
    async with Backend(gateway) as backend:
        done = await backend.post("/v1/tokens/revoke", {"user": revoked})

    assert done[1]["disconnected"] == 1
    assert await client.closed() == 1001
    with pytest.raises(InvalidStatus) as caught:
        await connect(gateway, "42")
    assert caught.value.response.status_code == 403
    assert gateway.metric("connects_total", result="refused", reason="token_revoked") == 1


async def test_the_backend_is_asked_about_connects(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start(events=["connect"])
    upstream.answers[CONNECT] = lambda body: {
        "cookie-7": web.json_response({"user": "7", "state": {"via": "cookie"}}),
        "nobody": web.Response(status=204),
        "banned": web.Response(status=403),
        "broken": web.Response(status=500),
    }[body["params"]["key"]]

    named = await connect(gateway, None, params={"key": "cookie-7", "x": "1"})
    await named.join(ROOM)
    asked = upstream.of(CONNECT)[0]
    assert asked["params"] == {"key": "cookie-7", "x": "1"}
    joined = upstream.of(JOIN)[0]
    assert (joined["user"], joined["state"]) == ("7", {"via": "cookie"})
    assert joined["session"] == asked["session"]

    both = await connect(gateway, "42", params={"key": "nobody"})
    await both.join(ROOM)
    assert upstream.of(CONNECT)[1]["user"] == "42"
    assert "token" not in upstream.of(CONNECT)[1]["params"], "it was verified here"
    assert upstream.of(JOIN)[1]["user"] == "42"

    for user, key, status, reason in (
        (None, "nobody", 403, "no_token"),
        ("42", "banned", 403, "upstream_refused"),
        ("42", "broken", 503, "upstream_unavailable"),
    ):
        with pytest.raises(InvalidStatus) as caught:
            await connect(gateway, user, params={"key": key})
        assert caught.value.response.status_code == status
        assert gateway.metric("connects_total", result="refused", reason=reason) == 1
    # only what becomes a socket costs the backend anything
    before = len(upstream.of(CONNECT))
    with pytest.raises(InvalidStatus):
        await connect(gateway, "42", params={"key": "banned"}, vsn="9.0.0")
    with pytest.raises(InvalidStatus):
        await PhoenixClient.connect(gateway.socket_url, "no.token.this", params={"key": "banned"})
    assert len(upstream.of(CONNECT)) == before


async def drip(_: dict[str, Any]) -> web.StreamResponse:
    """Never an end."""
    await asyncio.sleep(3600)
    return web.Response()


BAD_ANSWERS: dict[str, tuple[Answer | None, str]] = {
    "down": (None, "upstream unavailable"),
    "silent": (drip, "upstream timeout"),
    "garbage": (lambda _: web.Response(text="<html>ok</html>"), "upstream unavailable"),
    "no object": (says([1, 2]), "upstream unavailable"),
    "500": (says({"reason": "leaked"}, 500), "upstream unavailable"),
    "redirect": (
        lambda _: web.Response(status=302, headers={"Location": "/gateway"}),
        "upstream unavailable",
    ),
    "10 MB": (lambda _: web.Response(body=b'"' + b"x" * 10_000_000), "upstream unavailable"),
}


@pytest.mark.parametrize("way", BAD_ANSWERS)
async def test_a_backend_that_is_no_help_is_named_and_hurts_nobody(
    way: str, start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    gateway = start(timeout_seconds=1)
    client, other, listener = [await connect(gateway, user) for user in ("1", "2", "3")]
    await client.join(ROOM)
    for bystander in (other, listener):
        await bystander.join("plain:1")
    answer, reason = BAD_ANSWERS[way]
    if answer is None:
        await upstream.stop()
    else:
        upstream.answers |= {JOIN: answer, PUSH: answer}
    before = psutil.Process(gateway.pid).memory_info().rss

    pushes = [await client.push(ROOM, "say", {"n": n}) for n in range(3)]
    assert response(await client.reply(pushes[0])) == ("error", {"reason": reason})
    assert response(await client.join("room:2")) == ("error", {"reason": reason})
    said = await other.ask("plain:1", "said", {"n": 1})
    assert response(said) == ("ok", {})
    await listener.expect(lambda frame: frame[3] == "said")
    await client.heartbeat()
    for ref in pushes:
        assert response(await client.reply(ref))[0] == "error"
    assert "leaked" not in str(client.inbox)
    assert client.close_code is None
    grown = psutil.Process(gateway.pid).memory_info().rss - before
    assert grown < 40_000_000
    assert gateway.get("/readyz")[0] == 200


async def test_heartbeats_and_other_sockets_do_not_wait_for_a_slow_backend(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    """Everything here is answered while the backend still holds the first push back."""
    gateway = start()
    held = asyncio.Event()
    release = asyncio.Event()

    async def answer(_: dict[str, Any]) -> web.StreamResponse:
        held.set()
        await release.wait()
        return web.json_response({"response": {"late": True}})

    client, other = await connect(gateway, "1"), await connect(gateway, "2")
    await client.join(ROOM)
    await client.join("plain:1")
    await other.join("plain:1")
    upstream.answers[PUSH] = answer
    ref = await client.push(ROOM, "say")
    await held.wait()
    for _ in range(20):
        await client.heartbeat()
    assert response(await other.ask("plain:1", "said", {"n": 1})) == ("ok", {})
    await client.expect(lambda frame: frame[3] == "said")
    assert response(await client.ask("plain:1", "said", {"n": 2})) == ("ok", {})
    assert not any(frame[1] == ref for frame in client.inbox if isinstance(frame, list))
    release.set()
    assert response(await client.reply(ref)) == ("ok", {"late": True})


async def test_a_backend_that_recovers_is_used_again(
    start: Callable[..., GatewayProcess], upstream: UpstreamServer, connect: Connect
) -> None:
    client = await connect(start())
    await client.join(ROOM)
    upstream.answers[PUSH] = says({}, 500)
    for _ in range(8):
        assert response(await client.ask(ROOM, "say"))[0] == "error"
    reached = len(upstream.of(PUSH))
    assert reached < 8, "it was spared some"
    del upstream.answers[PUSH]

    async def helps() -> bool:
        return response(await client.ask(ROOM, "say"))[0] == "ok"

    await eventually(helps)


async def test_a_rule_may_name_its_own_backend(
    start_gateway: StartGateway, upstream: UpstreamServer, connect: Connect
) -> None:
    async with UpstreamServer() as second:
        channels = [
            {"pattern": "a:*", "join": "upstream", "upstream_url": second.url},
            {"pattern": "b:*", "join": "upstream"},
        ]
        client = await connect(
            start_gateway({"channels": channels, "upstream": upstream.section()})
        )
        await client.join("a:1")
        await client.join("b:1")

        assert [body["topic"] for body in second.of(JOIN)] == ["a:1"]
        assert [body["topic"] for body in upstream.of(JOIN)] == ["b:1"]
