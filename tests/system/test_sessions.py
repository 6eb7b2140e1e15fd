"""Users, their devices and their sessions, on one replica: seen, reached, limited, closed."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import StartGateway, StartNats
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.tokens import token
from tests.support.waiting import eventually

ROOM = "room:1"
CHANNELS = [
    {"pattern": "room:*", "join": "anyone", "push": "broadcast"},
    {"pattern": "party:*", "join": "anyone", "push": "broadcast", "presence": True},
]
CONFIG = {
    "channels": CHANNELS,
    "auth": {"allow_anonymous": True},
    "sessions": {"offline_after_seconds": 1},
}
COMPLETE = {"complete": True, "missing_replicas": []}

Connect = Callable[..., Awaitable[PhoenixClient]]

_numbers = count(1)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway the tests share; each has users of its own."""
    process = GatewayProcess(tmp_path_factory.mktemp("gateway"), CONFIG)
    process.start()
    yield process
    assert process.running()
    assert "Traceback" not in process.full_log()
    process.kill()


@pytest.fixture
async def backend(gateway: GatewayProcess) -> AsyncIterator[Backend]:
    """A service that calls the shared gateway."""
    async with Backend(gateway) as backend:
        yield backend


@pytest.fixture
async def connect(gateway: GatewayProcess) -> AsyncIterator[Connect]:
    """Opens sockets, of the shared gateway if no other is named; closes them after the test."""
    clients: list[PhoenixClient] = []

    async def start(
        user: str | None = None,
        *,
        joins: tuple[str, ...] = (),
        to: GatewayProcess | None = None,
        claims: dict[str, Any] | None = None,
        **params: str,
    ) -> PhoenixClient:
        signed = None if user is None else token(user, **(claims or {}))
        url = (to or gateway).socket_url
        clients.append(await PhoenixClient.connect(url, signed, params=params))
        for topic in joins:
            assert (await clients[-1].join(topic))[4]["status"] == "ok"
        return clients[-1]

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
def user() -> str:
    """A user no other test is."""
    return f"user-{next(_numbers)}"


async def session_of(client: PhoenixClient, user: str) -> str:
    """The id of a socket's session, from the join of its user's topic."""
    reply = await client.join(f"user:{user}")
    assert reply[4]["status"] == "ok"
    session: str = reply[4]["response"]["session"]
    return session


async def listed(backend: Backend, user: str) -> list[str]:
    """Ids of a user's sessions as the API lists them."""
    status, answer = await backend.get(f"/v1/users/{user}/sessions")
    assert status == 200
    assert {name: answer[name] for name in COMPLETE} == COMPLETE
    return [item["id"] for item in answer["items"]]


async def alive(client: PhoenixClient) -> bool:
    """Whether a socket still works."""
    return bool((await client.heartbeat())[4]["status"] == "ok" and client.close_code is None)


async def closed_of(clients: list[PhoenixClient]) -> list[PhoenixClient]:
    """Those that the gateway closed, once there are some."""
    await eventually(lambda: any(client.close_code is not None for client in clients))
    return [client for client in clients if client.close_code is not None]


def closes(client: PhoenixClient) -> list[str]:
    """Topics a client was taken off, in order."""
    return [f[2] for f in client.inbox if isinstance(f, list) and f[3] == "phx_close"]


def moment(text: str) -> float:
    """An RFC 3339 time in UTC as unix seconds."""
    assert text.endswith("Z")
    parsed = datetime.fromisoformat(text)
    assert parsed.tzinfo == UTC
    return parsed.timestamp()


def now() -> float:
    """Unix seconds."""
    return datetime.now(UTC).timestamp()


class TestPersonalTopic:
    """A user's messages are those of the topic with her id."""

    async def test_its_join_tells_a_client_its_session(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        laptop, phone = await connect(user), await connect(user)

        sessions = [await session_of(client, user) for client in (laptop, phone)]

        assert await listed(backend, user) == sessions
        assert len(set(sessions)) == 2
        assert (await laptop.join(ROOM))[4]["response"] == {}

    async def test_a_second_join_of_it_tells_the_same_session(
        self, connect: Connect, user: str
    ) -> None:
        client = await connect(user)

        assert await session_of(client, user) == await session_of(client, user)

    @pytest.mark.parametrize("stranger", ["mallory", None], ids=["another user", "anonymous"])
    async def test_nobody_else_can_join_it(
        self, connect: Connect, user: str, stranger: str | None
    ) -> None:
        client = await connect(stranger)

        reply = await client.join(f"user:{user}")

        assert reply[4] == {"status": "error", "response": {"reason": "unauthorized"}}
        assert await alive(client)

    async def test_nobody_can_push_to_it(self, connect: Connect, user: str) -> None:
        client = await connect(user, joins=(f"user:{user}",))

        reply = await client.ask(f"user:{user}", "said", {"text": "to myself"})

        assert reply[4] == {"status": "error", "response": {"reason": "push not allowed"}}


class TestPublishToUser:
    """POST /v1/publish with a user as its target."""

    @pytest.fixture
    async def devices(self, connect: Connect, user: str) -> dict[str, PhoenixClient]:
        """Three devices of one user, on her own topic, one of them of no known type."""
        phone = await connect(user, device_id="p1", device_type="phone")
        laptop = await connect(
            user, claims={"device": {"id": "l1", "type": "laptop"}}, device_type="a lie"
        )
        unknown = await connect(user)
        return {"phone": phone, "laptop": laptop, "unknown": unknown}

    @pytest.mark.parametrize(
        ("filters", "reached"),
        [
            ({}, {"phone", "laptop", "unknown"}),
            ({"exclude_sessions": ["<phone>"]}, {"laptop", "unknown"}),
            ({"exclude_sessions": ["<phone>", "<unknown>"]}, {"laptop"}),
            ({"exclude_sessions": ["no-such"]}, {"phone", "laptop", "unknown"}),
            ({"exclude_devices": ["p1"]}, {"laptop", "unknown"}),
            ({"exclude_devices": ["p1", "l1"]}, {"unknown"}),
            ({"exclude_devices": [""]}, {"phone", "laptop", "unknown"}),
            ({"device_types": ["phone"]}, {"phone"}),
            ({"device_types": ["phone", "laptop"]}, {"phone", "laptop"}),
            ({"device_types": ["a lie"]}, set()),
            ({"device_types": ["phone", "laptop"], "exclude_devices": ["p1"]}, {"laptop"}),
            ({"device_types": ["phone"], "exclude_sessions": ["<phone>"]}, set()),
        ],
        ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
    )
    async def test_it_reaches_all_devices_but_those_left_out(
        self,
        devices: dict[str, PhoenixClient],
        backend: Backend,
        user: str,
        filters: dict[str, list[str]],
        reached: set[str],
    ) -> None:
        topic = f"user:{user}"
        sessions = {f"<{name}>": await session_of(c, user) for name, c in devices.items()}
        body = {"user": user, "event": "said", "payload": {"n": 1}} | {
            key: [sessions.get(value, value) for value in values] for key, values in filters.items()
        }

        status, answer = await backend.post("/v1/publish", body)
        assert (status, answer["results"][0]["topic"]) == (202, topic)
        assert await backend.publish(topic, "end", {}) == 202

        for client in devices.values():
            await client.expect(lambda frame: frame[3] == "end")
        assert {n for n, c in devices.items() if c.events(topic, "said") == [{"n": 1}]} == reached
        assert sum(len(c.events(topic, "said")) for c in devices.values()) == len(reached)

    async def test_filters_hold_on_any_topic(
        self, devices: dict[str, PhoenixClient], connect: Connect, backend: Backend
    ) -> None:
        topic = "room:filters"
        nobody = await connect()
        for client in (*devices.values(), nobody):
            await client.join(topic)
        body = {"topic": topic, "event": "said", "payload": {}, "device_types": ["laptop"]}

        assert (await backend.post("/v1/publish", body))[0] == 202
        assert await backend.publish(topic, "end", {}) == 202

        for client in (*devices.values(), nobody):
            await client.expect(lambda frame: frame[3] == "end")
        heard = [c for c in (*devices.values(), nobody) if c.events(topic, "said")]
        assert heard == [devices["laptop"]]

    async def test_a_user_who_is_not_there_is_no_problem(self, backend: Backend) -> None:
        body = {"user": "nobody", "event": "said", "payload": {}}

        assert (await backend.post("/v1/publish", body))[0] == 202


class TestList:
    """GET /v1/users/{user}/sessions."""

    async def test_a_session_has_all_its_fields(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        before = now()
        client = await connect(
            user, device_id="d1", device_name="Ann's phone", device_type="phone", vsn="2.0.0"
        )
        session = await session_of(client, user)
        await client.join(ROOM)

        status, answer = await backend.get(f"/v1/users/{user}/sessions")

        assert status == 200
        (item,) = answer.pop("items")
        assert answer == COMPLETE
        connected_at, last_seen_at = item.pop("connected_at"), item.pop("last_seen_at")
        assert before - 0.1 <= moment(connected_at) <= now() + 0.1
        assert moment(connected_at) - 0.1 <= moment(last_seen_at) <= now() + 0.1
        assert item.pop("replica")
        assert item.pop("user_agent").startswith("Python/")
        assert item == {
            "id": session,
            "user": user,
            "device": {"id": "d1", "name": "Ann's phone", "type": "phone"},
            "transport": "websocket",
            "protocol": "2.0.0",
            "ip": "127.0.0.1",
            "topics": [f"user:{user}", ROOM],
        }

    async def test_it_is_as_new_as_its_last_frame(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        client = await connect(user, joins=(ROOM,))

        async def last_seen() -> float:
            _, answer = await backend.get(f"/v1/users/{user}/sessions")
            return moment(answer["items"][0]["last_seen_at"])

        before = await last_seen()

        async def is_later() -> bool:
            await client.heartbeat()
            return await last_seen() > before

        await eventually(is_later)

    async def test_a_socket_is_listed_from_its_first_successful_join_on(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        client = await connect(user)
        assert await alive(client)
        assert await listed(backend, user) == []
        assert (await client.join("other:1"))[4]["status"] == "error"
        assert (await client.join("user:somebody-else"))[4]["status"] == "error"
        assert await listed(backend, user) == []

        await client.join(ROOM)

        assert len(await listed(backend, user)) == 1
        await client.leave(ROOM)
        assert len(await listed(backend, user)) == 1, "the socket is still there"
        await client.close()

        async def gone() -> bool:
            return await listed(backend, user) == []

        await eventually(gone)

    async def test_anonymous_sockets_are_never_sessions(
        self, connect: Connect, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(CONFIG | {"sessions": {"max_per_user": 1}})
        clients = [await connect(joins=(ROOM,), to=gateway, device_id="d1") for _ in range(2)]
        await connect("ann", joins=(ROOM,), to=gateway, device_id="d1")

        # the replica's figures are renewed once a second, all together
        await eventually(lambda: gateway.metric("sessions") == 1)
        assert gateway.metric("connections", transport="websocket") == 3
        async with Backend(gateway) as backend:
            assert len(await listed(backend, "ann")) == 1
            assert await listed(backend, "None") == []
        for client in clients:
            assert await alive(client)


class TestClose:
    """DELETE /v1/users/{user}/sessions, one or all."""

    async def test_one_session_is_closed_once(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        laptop, phone = await connect(user), await connect(user, joins=(ROOM,))
        session = await session_of(laptop, user)
        path = f"/v1/users/{user}/sessions/{session}"

        assert await backend.delete(path) == (200, {"disconnected": 1} | COMPLETE)
        assert await laptop.closed() == 1001
        assert await backend.delete(path) == (200, {"disconnected": 0} | COMPLETE)

        assert closes(laptop) == [], "its client is to join again by itself"
        assert len(await listed(backend, user)) == 1
        assert await alive(phone)

    async def test_a_session_of_another_user_is_left_alone(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        client = await connect(user)
        session = await session_of(client, user)

        status, answer = await backend.delete(f"/v1/users/mallory/sessions/{session}")

        assert (status, answer["disconnected"]) == (200, 0)
        assert await alive(client)

    async def test_all_but_some_are_closed(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        clients = [await connect(user) for _ in range(4)]
        ids = [await session_of(client, user) for client in clients]

        answer = await backend.delete(f"/v1/users/{user}/sessions?except={ids[0]},{ids[2]}")

        assert answer == (200, {"disconnected": 2} | COMPLETE)
        assert [await clients[index].closed() for index in (1, 3)] == [1001, 1001]
        assert await listed(backend, user) == [ids[0], ids[2]]
        assert await backend.delete(f"/v1/users/{user}/sessions") == (
            200,
            {"disconnected": 2} | COMPLETE,
        )
        assert [await clients[index].closed() for index in (0, 2)] == [1001, 1001]
        assert await listed(backend, user) == []

    @pytest.mark.parametrize(
        "path",
        [
            "/v1/users/{user}/sessions/not%20an%20id",
            "/v1/users/{user}/sessions/" + "x" * 65,
            "/v1/users/{user}/sessions?except=not.an.id",
            "/v1/users/{user}/sessions?except=",
            "/v1/users/{user}/sessions?expect=abc",
            "/v1/users/" + "x" * 256 + "/sessions",
        ],
    )
    async def test_what_makes_no_sense_closes_nothing(
        self, connect: Connect, backend: Backend, user: str, path: str
    ) -> None:
        client = await connect(user, joins=(ROOM,))

        status, problem = await backend.delete(path.format(user=user))

        assert (status, problem["status"]) == (422, 422)
        assert problem["errors"]
        assert await alive(client)


class TestTakingOffATopic:
    """DELETE /v1/topics/{topic}/users/{user}."""

    async def test_all_devices_leave_that_topic_and_no_other(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        topic, other = "party:off", "room:stays"
        ann = [await connect(user, joins=(topic, other)) for _ in range(2)]
        ben = await connect("ben", joins=(topic, other))
        await ben.expect(lambda f: f[3] == "presence_state" and user in f[4])

        answer = await backend.delete(f"/v1/topics/party%3Aoff/users/{user}")

        assert answer == (200, {"removed": 2} | COMPLETE)
        for client in ann:
            await client.expect(lambda frame: frame[3] == "phx_close")
            assert closes(client) == [topic]
        assert await backend.publish(topic, "said", {}) == 202
        assert await backend.publish(other, "end", {}) == 202
        for client in (*ann, ben):
            await client.expect(lambda frame: frame[3] == "end")
        assert [len(client.events(topic, "said")) for client in (*ann, ben)] == [0, 0, 1]
        assert closes(ben) == []
        await ben.expect(lambda f: f[3] == "presence_diff" and user in f[4]["leaves"])
        reply = await ann[0].ask(topic, "said", {})
        assert reply[4]["response"] == {"reason": "unmatched topic"}
        again = await backend.delete(f"/v1/topics/party%3Aoff/users/{user}")
        assert again == (200, {"removed": 0} | COMPLETE)

        assert (await ann[0].join(topic))[4]["status"] == "ok"
        assert await backend.publish(topic, "back", {}) == 202
        await ann[0].expect(lambda frame: frame[3] == "back")

    async def test_names_with_a_slash_are_one_segment(
        self, connect: Connect, backend: Backend
    ) -> None:
        await connect("a/b ü", joins=("room:x/y",))

        answer = await backend.delete("/v1/topics/room%3Ax%2Fy/users/a%2Fb%20%C3%BC")

        assert answer == (200, {"removed": 1} | COMPLETE)

    async def test_a_join_that_still_waits_is_refused_with_what_waits_behind_it(
        self, connect: Connect, start_gateway: StartGateway, start_nats: StartNats
    ) -> None:
        nats = start_nats()
        gateway = start_gateway({"bus": {"url": nats.url}})
        client = await connect("ann", joins=(ROOM,), to=gateway)
        nats.pause()
        async with Backend(gateway) as backend:
            await client.send_frame("7", "7", "room:2", "phx_join", {})
            await client.send_frame("7", "8", "room:2", "said", {})
            await client.send_frame("9", "9", "room:2", "phx_join", {})
            await client.heartbeat()
            status, answer = await backend.delete("/v1/topics/room%3A2/users/ann")
            nats.resume()

            assert (status, answer.get("removed")) == (200, 1), gateway.log()
        assert (await client.reply("7"))[4]["response"] == {"reason": "unauthorized"}
        assert (await client.reply("8"))[4]["status"] == "error"
        # a join that waited too is refused or tried anew, as long as it is answered
        await client.reply("9")
        assert (await client.join("room:2"))[4]["status"] == "ok"


class TestLimits:
    """How many sessions a user may have."""

    async def test_a_token_may_set_the_limit_and_a_refused_socket_is_no_session(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        claims = {"max_sessions": 2}
        first, _ = [await connect(user, joins=(ROOM,), claims=claims) for _ in range(2)]
        third = await connect(user, claims=claims)

        reply = await third.join(ROOM)

        refusal = {"status": "error", "response": {"reason": "session limit reached"}}
        assert reply[4] == refusal
        assert (await third.join(f"user:{user}"))[4] == refusal
        assert len(await listed(backend, user)) == 2
        assert await alive(third)
        await first.close()

        async def lets_in() -> bool:
            return bool((await third.join(ROOM))[4]["status"] == "ok")

        await eventually(lets_in)
        assert len(await listed(backend, user)) == 2

    async def test_the_newest_tokens_limit_counts(self, connect: Connect, user: str) -> None:
        await connect(user, joins=(ROOM,), claims={"max_sessions": 1})
        await connect(user, joins=(ROOM,), claims={"max_sessions": 3})
        strict = await connect(user, claims={"max_sessions": 2})

        reply = await strict.join(ROOM)

        assert reply[4]["response"] == {"reason": "session limit reached"}
        await connect(user, joins=(ROOM,))

    async def test_a_session_may_join_more_topics_at_the_limit(
        self, connect: Connect, user: str
    ) -> None:
        client = await connect(user, joins=(ROOM,), claims={"max_sessions": 1})

        assert (await client.join("room:2"))[4]["status"] == "ok"

    @pytest.mark.parametrize(
        "sessions",
        [
            {"max_per_user": 1, "when_full": "close_oldest"},
            {"same_device": "replace"},
        ],
        ids=["limit", "same device"],
    )
    async def test_who_gives_way_is_taken_off_all_topics_and_closed_with_4001(
        self, connect: Connect, start_gateway: StartGateway, sessions: dict[str, Any]
    ) -> None:
        gateway = start_gateway(CONFIG | {"sessions": sessions})
        topics = ("room:1", "party:1", "user:ann")
        old = await connect("ann", joins=topics, to=gateway, device_id="d1")
        ben = await connect("ben", joins=("party:1",), to=gateway, device_id="d1")

        new = await connect("ann", joins=topics, to=gateway, device_id="d1")

        assert await old.closed() == 4001
        assert sorted(closes(old)) == sorted(topics)
        last = [frame[3] for frame in old.inbox[-3:] if isinstance(frame, list)]
        assert last == ["phx_close"] * 3
        assert await alive(new)
        assert await alive(ben), "a device id means nothing beside its user"
        async with Backend(gateway) as backend:
            assert len(await listed(backend, "ann")) == 1
        await eventually(lambda: gateway.metric("disconnects_total", code="4001") == 1)
        await eventually(lambda: gateway.metric("sessions") == 2)

    async def test_a_join_that_another_overtakes_is_answered_before_its_socket_is_closed(
        self, connect: Connect, start_gateway: StartGateway
    ) -> None:
        """phoenix.js tries a join without an answer again after ten seconds, on a closed channel too."""
        sessions = {"max_per_user": 1, "when_full": "close_oldest"}
        gateway = start_gateway(CONFIG | {"sessions": sessions})

        async def race(n: int) -> None:
            pair = [await connect(f"u{n}", to=gateway) for _ in range(2)]

            await asyncio.gather(
                *(client.send_frame("1", "1", f"room:{n}", "phx_join", {}) for client in pair)
            )

            for client in pair:
                await client.expect(lambda frame: frame[3] in ("phx_reply", "phx_close"))
            (loser,) = await closed_of(pair)
            assert loser.close_code == 4001
            events = [frame[3] for frame in loser.inbox if isinstance(frame, list)]
            assert events == ["phx_reply", "phx_close"]

        for first in range(0, 30, 10):
            await asyncio.gather(*(race(first + n) for n in range(10)))

    async def test_a_socket_may_wait_before_it_takes_anothers_place(
        self, connect: Connect, start_gateway: StartGateway
    ) -> None:
        sessions = {"max_per_user": 1, "when_full": "close_oldest"}
        gateway = start_gateway(CONFIG | {"sessions": sessions})
        early = await connect("ann", to=gateway)
        first = await connect("ann", joins=(ROOM,), to=gateway)
        assert await alive(early)
        assert await alive(first), "what has not joined is no session"

        await early.join(ROOM)

        assert await first.closed() == 4001
        assert await alive(early)

    async def test_devices_without_an_id_replace_nobody(
        self, connect: Connect, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(CONFIG | {"sessions": {"same_device": "replace"}})
        clients = [await connect("ann", joins=(ROOM,), to=gateway) for _ in range(2)]
        clients.append(await connect("ann", joins=(ROOM,), to=gateway, device_id="d1"))
        clients.append(await connect("ann", joins=(ROOM,), to=gateway, device_id="d2"))

        for client in clients:
            assert await alive(client)


class TestPresence:
    """GET /v1/users/{user} and POST /v1/users/status."""

    async def test_a_user_is_online_until_a_while_after_her_last_session(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        path = f"/v1/users/{user}"
        came_at = now()
        clients = [await connect(user, joins=(ROOM,)) for _ in range(2)]
        status, answer = await backend.get(path)
        assert status == 200
        assert came_at - 0.1 <= moment(answer.pop("last_seen_at")) <= now() + 0.1
        assert answer == {"user": user, "online": True, "sessions": 2} | COMPLETE

        left_at = now()
        for client in clients:
            await client.close()

        async def without_sessions() -> bool:
            return bool((await backend.get(path))[1]["sessions"] == 0)

        await eventually(without_sessions)
        gone_at = now()
        # a slow machine may need the second of grace to get here, so nothing is asserted of it
        await eventually(lambda: offline(backend, user))
        assert now() - left_at > 0.8
        _, answer = await backend.get(path)
        assert left_at - 0.1 <= moment(answer["last_seen_at"]) <= gone_at + 0.1
        assert answer["sessions"] == 0

    async def test_who_comes_back_in_time_was_never_offline(
        self, connect: Connect, start_gateway: StartGateway
    ) -> None:
        gateway = start_gateway(CONFIG | {"sessions": {"offline_after_seconds": 60}})
        client = await connect("ann", joins=(ROOM,), to=gateway)
        await client.close()
        async with Backend(gateway) as backend:
            await eventually(lambda: gateway.metric("connections", transport="websocket") == 0)
            _, answer = await backend.get("/v1/users/ann")
            assert (answer["online"], answer["sessions"]) == (True, 0)
            await connect("ann", joins=(ROOM,), to=gateway)
            _, answer = await backend.get("/v1/users/ann")
        assert (answer["online"], answer["sessions"]) == (True, 1)

    async def test_a_user_nobody_knows_is_offline(self, backend: Backend) -> None:
        assert await backend.get("/v1/users/nobody-ever") == (
            200,
            {"user": "nobody-ever", "online": False, "sessions": 0, "last_seen_at": None}
            | COMPLETE,
        )
        assert await listed(backend, "nobody-ever") == []
        gone = await backend.delete("/v1/users/nobody-ever/sessions")
        assert gone == (200, {"disconnected": 0} | COMPLETE)
        removed = await backend.delete("/v1/topics/room:1/users/nobody-ever")
        assert removed == (200, {"removed": 0} | COMPLETE)

    async def test_the_status_of_many_is_asked_at_once(
        self, connect: Connect, backend: Backend, user: str
    ) -> None:
        await connect(user, joins=(ROOM,))
        await connect("not-joined")

        asked = {"users": [user, "nobody-ever", "not-joined", user]}
        status, answer = await backend.post("/v1/users/status", asked)

        offline = {"online": False, "sessions": 0}
        assert status == 200
        assert answer == COMPLETE | {
            "users": {
                user: {"online": True, "sessions": 1},
                "nobody-ever": offline,
                "not-joined": offline,
            }
        }

    async def test_more_than_a_thousand_are_refused(self, backend: Backend) -> None:
        many = {"users": [f"u{n}" for n in range(1000)]}
        assert (await backend.post("/v1/users/status", many))[0] == 200
        many["users"].append("one more")

        assert (await backend.post("/v1/users/status", many))[0] == 422


async def offline(backend: Backend, user: str) -> bool:
    """Whether the API calls a user offline."""
    return not (await backend.get(f"/v1/users/{user}"))[1]["online"]


class TestBadInput:
    """What clients and tokens should not say."""

    @pytest.mark.parametrize("field", ["device_id", "device_name", "device_type"])
    async def test_a_description_that_is_too_long_is_refused(
        self, connect: Connect, gateway: GatewayProcess, user: str, field: str
    ) -> None:
        before = gateway.metric("connects_total", result="refused", reason="device")
        await connect(user, joins=(ROOM,), **{field: "x" * 128})

        with pytest.raises(InvalidStatus) as refused:
            await connect(user, **{field: "x" * 129})

        assert refused.value.response.status_code == 403
        assert gateway.metric("connects_total", result="refused", reason="device") == before + 1

    @pytest.mark.parametrize(
        "claims",
        [
            {"device": "phone"},
            {"device": ["d1"]},
            {"device": {"id": 7}},
            {"device": {"id": None}},
            {"device": {"id": "x" * 129}},
            {"device": True},
            {"max_sessions": 0},
            {"max_sessions": -1},
            {"max_sessions": True},
            {"max_sessions": "2"},
            {"max_sessions": 1.5},
            {"max_sessions": 10**30},
            {"presence": []},
            {"presence": "busy"},
            {"presence": {"text": "x" * 1024}},
        ],
        ids=lambda claims: str(claims)[:40],
    )
    async def test_a_claim_of_the_wrong_kind_is_refused(
        self, connect: Connect, gateway: GatewayProcess, user: str, claims: dict[str, Any]
    ) -> None:
        before = gateway.metric("connects_total", result="refused", reason="token_claims")

        with pytest.raises(InvalidStatus) as refused:
            await connect(user, claims=claims)

        assert refused.value.response.status_code == 403
        after = gateway.metric("connects_total", result="refused", reason="token_claims")
        assert after == before + 1

    @pytest.mark.parametrize(
        "claims",
        [
            {"device": None},
            {"device": {}},
            {"device": {"id": "d1", "model": "further fields are nobody's business"}},
            {"max_sessions": None},
            {"presence": None},
            {"presence": {}},
        ],
        ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
    )
    async def test_claims_that_may_be_empty(
        self, connect: Connect, user: str, claims: dict[str, Any]
    ) -> None:
        await connect(user, joins=("party:empty",), claims=claims)

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [
            ('{"text": "' + "x" * 1024 + '"}', "payload too large"),
            ('"away"', "malformed"),
            ('["away"]', "malformed"),
            ("null", "malformed"),
            ("7", "malformed"),
            ('{"a":' + "[" * 500 + "]" * 500 + "}", None),
            ('{"a": 1, "a": 2}', None),
            ('{"phx_ref": "x"}', None),
            ('{"a": 1e999}', None),
            ("{ }", None),
        ],
    )
    async def test_a_presence_update_is_taken_or_refused_and_all_stay_alive(
        self, connect: Connect, user: str, payload: str, reason: str | None
    ) -> None:
        topic = "party:updates"
        witness = await connect("witness", joins=(topic,))
        client = await connect(user, joins=(topic,))
        await client.expect(lambda f: f[3] == "presence_state" and user in f[4])

        await client.send(f'["1","u","{topic}","presence_update",{payload}]')
        answer = (await client.reply("u"))[4]

        if reason is None:
            assert answer == {"status": "ok", "response": {}}
        else:
            assert answer == {"status": "error", "response": {"reason": reason}}
        for each in (client, witness):
            assert (await each.ask(topic, "said", {}))[4]["status"] == "ok"
            assert await alive(each)
        # whatever it was, who comes now is told of it in valid JSON
        late = await connect("late", joins=(topic,))
        state = await late.expect(lambda frame: frame[3] == "presence_state")
        assert len(state[4][user]["metas"]) == 1

    async def test_a_binary_presence_update_is_malformed(self, connect: Connect, user: str) -> None:
        topic = "party:binary"
        client = await connect(user, joins=(topic,))
        names = [b"1", b"u", topic.encode(), b"presence_update"]
        head = bytes([0, *map(len, names)])

        await client.send(head + b"".join(names) + b'{"status":"away"}')

        answer = (await client.reply("u"))[4]
        assert answer == {"status": "error", "response": {"reason": "malformed"}}
        assert await alive(client)

    async def test_a_topic_without_presence_takes_no_update(
        self, connect: Connect, user: str
    ) -> None:
        client = await connect(user, joins=(ROOM,))

        answer = await client.ask(ROOM, "presence_update", {"status": "away"})

        assert answer[4]["response"] == {"reason": "push not allowed"}
        unjoined = await client.ask("party:unjoined", "presence_update", {"status": "away"})
        assert unjoined[4]["response"] == {"reason": "unmatched topic"}

    @pytest.mark.parametrize(
        "event", ["presence_state", "presence_diff", "presence_count", "presence_update"]
    )
    async def test_nobody_can_publish_presence(
        self, connect: Connect, backend: Backend, user: str, event: str
    ) -> None:
        topic = "party:forged"
        client = await connect(user, joins=(topic,))

        status, _ = await backend.post(
            "/v1/publish", {"topic": topic, "event": event, "payload": {}}
        )

        assert status == 422
        if event != "presence_update":
            reply = await client.ask(topic, event, {})
            assert reply[4]["response"] == {"reason": "push not allowed"}

    @pytest.mark.parametrize(
        "body",
        [{}, {"users": "ann"}, {"users": [7]}, {"users": [""]}, {"user": ["ann"]}],
        ids=json.dumps,
    )
    async def test_a_status_request_that_makes_no_sense(self, backend: Backend, body: Any) -> None:
        assert (await backend.post("/v1/users/status", body))[0] == 422
