"""The demo's backend by itself: two processes on one database, and a gateway that only remembers."""

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import jwt
import pytest
from aiohttp import web

from deploy.demo.store import Store
from tests.support.demo import (
    API_KEY,
    PNG,
    TOKEN_SECRET,
    WEBHOOK_SECRET,
    DemoBackend,
    Rest,
    database,
    start,
)
from tests.support.ports import free_port
from tests.support.webhooks import OTHER_SECRET, Callback, join, push

Backends = tuple[DemoBackend, DemoBackend]


class FakeGateway:
    """The API of a gateway.

    Attributes:
        calls: Method, path as sent, and body of each.
        complete: Whether it says that all replicas did what they were told.
        status: What it answers with.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.calls: list[tuple[str, str, Any]] = []
        self.complete = True
        self.status = 200
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()

    async def stop(self) -> None:
        """Listen no more."""
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {API_KEY}"
        body = await request.json() if request.can_read_body else None
        self.calls.append((request.method, request.raw_path, body))
        answer = {"id": "1", "results": [], "removed": 2, "complete": self.complete}
        return web.json_response(answer, status=self.status)


@pytest.fixture(scope="module")
def gateway_port() -> int:
    """Where the backends of this file believe the gateway's API to be."""
    return free_port()


@pytest.fixture
async def gateway(gateway_port: int) -> AsyncIterator[FakeGateway]:
    """One that has not been called yet."""
    fake = FakeGateway(gateway_port)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the database is."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def pair(directory: Path, gateway_port: int) -> Iterator[Backends]:
    """Two processes that share a database; as they have no state, the tests can share them."""
    url = f"http://127.0.0.1:{gateway_port}"
    pair = (DemoBackend(directory, url), DemoBackend(directory, url))
    yield pair
    for backend in pair:
        backend.kill()


@pytest.fixture
def backends(pair: Backends, directory: Path, gateway: FakeGateway) -> Backends:  # noqa: ARG001 -- they call it
    """Both, on a database as it is at first."""
    database(directory).unlink(missing_ok=True)
    Store(database(directory)).create()
    start(*pair)
    return pair


async def ask(backend: DemoBackend, callback: Callback) -> tuple[int, Any]:
    """What it answers the gateway."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{backend.url}/gateway", data=callback.body, headers=callback.headers
        ) as response,
    ):
        return response.status, await response.json() if await response.read() else None


def signed(call: dict[str, Any], **options: Any) -> Callback:
    """As the demo's gateway signs."""
    return Callback(call, **({"secrets": [WEBHOOK_SECRET]} | options))


async def test_a_login_gives_a_token_that_names_user_and_device(backends: Backends) -> None:
    async with Rest(backends[0].url, "ada", "phone") as ada:
        claims = jwt.decode(ada.token, TOKEN_SECRET, algorithms=["HS256"])

    assert claims["sub"] == "ada"
    assert claims["device"] == {"id": "ada-phone", "name": "Ada's phone", "type": "phone"}
    assert 0 < claims["exp"] - claims["iat"] <= 86_400, "what a gateway allows by default"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"user": "mallory", "device": "phone"}', 403),
        (b'{"user": "ada", "device": "fridge"}', 403),
        (b'["ada"]', 403),
        (b"{", 400),
        (b"\xff", 400),
    ],
)
async def test_a_login_that_makes_no_sense_is_refused(
    backends: Backends, body: bytes, status: int
) -> None:
    async with aiohttp.ClientSession() as http:
        response = await http.post(f"{backends[0].url}/login", data=body)

        assert response.status == status
        assert (await response.json())["reason"]


async def test_members_join_and_others_are_told_why_not(backends: Backends) -> None:
    for backend in backends:
        expected = {"response": {"replica": "test"}, "presence": {"name": "Ada"}}
        assert await ask(backend, signed(join("ada"))) == (200, expected)
        for user in ("eve", "mallory", None):
            assert await ask(backend, signed(join(user))) == (403, {"reason": "not a member"})
    assert (await ask(backends[0], signed(join("eve", "room:random"))))[0] == 200


async def test_a_push_is_stored_and_answered_with_a_broadcast(backends: Backends) -> None:
    call = signed(push("ada", {"text": "grüß Gott"}), webhook_id="m1")
    status, answer = await ask(backends[0], call)
    [broadcast] = answer["broadcast"]

    assert (status, answer["response"]) == (200, {"id": "m1"})
    assert broadcast["event"] == "message"
    assert (
        broadcast["payload"] | {"id": "m1", "user": "ada", "text": "grüß Gott"}
        == broadcast["payload"]
    )
    async with Rest(backends[1].url, "bob") as bob:
        kept = {key: broadcast[key] for key in ("event", "payload")}
        assert await bob.call("GET", "/rooms/general/messages") == (200, [kept])


async def test_a_callback_that_comes_twice_is_stored_once(backends: Backends) -> None:
    call = push("ada", {"text": "once"})
    first = await ask(backends[0], signed(call, webhook_id="m1"))

    assert await ask(backends[1], signed(call, webhook_id="m1")) == first
    async with Rest(backends[1].url, "bob") as bob:
        assert len((await bob.call("GET", "/rooms/general/messages"))[1]) == 1


async def test_a_push_that_is_repeated_with_its_id_is_stored_once(backends: Backends) -> None:
    answers = [
        await ask(backend, signed(push("ada", {"id": "p1", "text": "once"}), webhook_id=f"m{n}"))
        for n, backend in enumerate(backends)
    ]

    assert answers[0] == answers[1]
    assert answers[0][1]["broadcast"][0]["id"] == "p1", "so that the gateway tells it once"
    assert (await ask(backends[0], signed(push("bob", {"id": "p1", "text": "no"}))))[0] == 409
    for bad in ("", 7, "x" * 65):
        status, _ = await ask(backends[0], signed(push("ada", {"id": bad, "text": "x"})))
        assert status == 422


async def test_pushes_of_others_and_of_other_events_are_refused(backends: Backends) -> None:
    backend = backends[0]

    assert (await ask(backend, signed(push("eve", {"text": "hi"}))))[0] == 403
    for call in (push("ada", {"text": 7}), push("ada", {}), push("ada", {"text": "x"}, event="x")):
        assert (await ask(backend, signed(call)))[0] == 422
    assert (await ask(backend, signed({"type": "gateway.user.online", "user": "ada"})))[0] == 204


async def test_a_forged_callback_is_refused(backends: Backends) -> None:
    changed = signed(join("eve"))
    changed.body = changed.body.replace(b'"eve"', b'"ada"')
    forged = [
        changed,
        signed(join("ada"), secrets=[OTHER_SECRET]),
        signed(join("ada"), age_seconds=600),
    ]
    for callback in forged:
        assert await ask(backends[0], callback) == (401, {"reason": "bad signature"})


async def test_a_message_by_rest_is_published(backends: Backends, gateway: FakeGateway) -> None:
    async with Rest(backends[0].url, "ada") as ada:
        status, post = await ada.call("POST", "/rooms/general/messages", json={"text": "hi"})

    assert status == 201
    event = {"topic": "room:general", "event": "message", "payload": post, "id": post["id"]}
    assert gateway.calls == [("POST", "/v1/publish", event)]


async def test_an_image_is_one_event_and_its_bytes_are_anywhere(
    backends: Backends, gateway: FakeGateway
) -> None:
    async with Rest(backends[0].url, "ada", "phone") as ada:
        status, post = await ada.upload("general")
    assert status == 201
    event = {"topic": "room:general", "event": "image", "payload": post, "id": post["id"]}
    assert gateway.calls == [("POST", "/v1/publish", event)]

    async with Rest(backends[1].url, "bob") as bob:
        assert await bob.fetch(post["url"]) == ("image/png", PNG)
        _, past = await bob.call("GET", "/rooms/general/messages")
    assert past == [{"event": "image", "payload": post}]


@pytest.mark.parametrize(
    ("kind", "data", "status"),
    [
        ("image/svg+xml", b"<svg/>", 415),
        ("text/html", b"<p>", 415),
        ("image/png", b"x" * 2**23, 413),
    ],
)
async def test_what_is_no_image_is_refused(
    backends: Backends, gateway: FakeGateway, kind: str, data: bytes, status: int
) -> None:
    async with (
        Rest(backends[0].url, "ada") as ada,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {ada.token}"}) as http,
    ):
        url = f"{backends[0].url}/rooms/general/images"
        response = await http.post(url, data=io.BytesIO(data), headers={"Content-Type": kind})
        assert response.status == status
    assert gateway.calls == []


async def test_what_the_gateway_misses_is_kept(backends: Backends, gateway: FakeGateway) -> None:
    gateway.status = 503
    async with Rest(backends[0].url, "ada") as ada:
        status, post = await ada.call("POST", "/rooms/general/messages", json={"text": "hi"})
        assert status == 201
        assert (await ada.call("GET", "/rooms/general/messages"))[1][0]["payload"] == post
    assert "/v1/publish" in backends[0].log(), "and it is in the log"
    assert API_KEY not in backends[0].log()


async def test_a_removed_member_is_taken_off_the_topic(
    backends: Backends, gateway: FakeGateway
) -> None:
    async with Rest(backends[0].url, "ada") as ada:
        assert await ada.call("DELETE", "/rooms/general/members/bob") == (204, None)

        assert gateway.calls == [("DELETE", "/v1/topics/room:general/users/bob", None)]
        assert (await ask(backends[1], signed(join("bob"))))[0] == 403
        assert await ada.call("PUT", "/rooms/general/members/bob") == (204, None)
        assert (await ask(backends[1], signed(join("bob"))))[0] == 200


async def test_a_removal_that_did_not_reach_all_replicas_says_so(
    backends: Backends, gateway: FakeGateway
) -> None:
    """She is out already, and may only hear on; who removed her must try again."""
    async with Rest(backends[0].url, "ada") as ada:
        gateway.complete = False
        assert (await ada.call("DELETE", "/rooms/general/members/bob"))[0] == 502
        gateway.complete, gateway.status = True, 503
        assert (await ada.call("DELETE", "/rooms/general/members/bob"))[0] == 502
        assert (await ask(backends[0], signed(join("bob"))))[0] == 403
        gateway.status = 200
        assert (await ada.call("DELETE", "/rooms/general/members/bob"))[0] == 204


CALLS = [
    ("GET", "/rooms/general/messages", {}),
    ("POST", "/rooms/general/messages", {"json": {"text": "hi"}}),
    ("POST", "/rooms/general/images", {"data": PNG, "headers": {"Content-Type": "image/png"}}),
    ("PUT", "/rooms/general/members/eve", {}),
    ("DELETE", "/rooms/general/members/bob", {}),
]


@pytest.mark.parametrize(
    ("method", "path", "options"), CALLS, ids=[f"{m} {p}" for m, p, _ in CALLS]
)
async def test_only_members_may(
    backends: Backends, gateway: FakeGateway, method: str, path: str, options: dict[str, Any]
) -> None:
    async with Rest(backends[0].url, "eve") as eve:
        assert await eve.call(method, path, **options) == (403, {"reason": "not a member"})
        for token in ("", "x.y.z", jwt.encode({"sub": "ada", "exp": 1}, TOKEN_SECRET, "HS256")):
            eve.token = token
            assert await eve.call(method, path, **options) == (401, {"reason": "bad token"})
    assert gateway.calls == []


async def test_names_are_encoded_in_the_path_of_the_api(
    backends: Backends, gateway: FakeGateway
) -> None:
    """A user called ``../x`` must not become another path of the gateway's API."""
    async with Rest(backends[0].url, "ada") as ada:
        await ada.call("DELETE", f"/rooms/general/members/{quote('a/b', safe='')}")

    assert gateway.calls == [("DELETE", "/v1/topics/room:general/users/a%2Fb", None)]


async def test_a_killed_process_is_not_missed(backends: Backends) -> None:
    async with Rest(backends[0].url, "ada") as ada:
        await ada.call("POST", "/rooms/general/messages", json={"text": "before"})
        await ada.call("PUT", "/rooms/general/members/eve")
    backends[0].kill()

    async with Rest(backends[1].url, "eve") as eve:
        _, past = await eve.call("GET", "/rooms/general/messages")
    assert [each["payload"]["text"] for each in past] == ["before"]
    assert (await ask(backends[1], signed(push("eve", {"text": "after"}))))[0] == 200


async def test_both_write_at_once_and_nothing_is_lost(backends: Backends) -> None:
    calls = [
        ask(backends[n % 2], signed(push("ada", {"text": str(n)}), webhook_id=f"m{n}"))
        for n in range(40)
    ]
    answers = await asyncio.gather(*calls)

    assert {status for status, _ in answers} == {200}
    async with Rest(backends[0].url, "bob") as bob:
        _, past = await bob.call("GET", "/rooms/general/messages")
    assert {each["payload"]["text"] for each in past} == {str(n) for n in range(40)}


async def test_the_page_is_served_and_nothing_else_of_the_folder(backends: Backends) -> None:
    async with aiohttp.ClientSession() as http:
        for path, kind in (
            ("/", "text/html"),
            ("/rooms", "text/html"),
            ("/rooms.js", "javascript"),
            ("/theme.css", "css"),
            ("/phoenix.mjs", "javascript"),
        ):
            response = await http.get(f"{backends[0].url}{path}")
            assert response.status == 200
            assert kind in response.content_type
        for path in ("/gateway.toml", "/backend.py", "/package.json", "/..%2Fgateway.toml"):
            assert (await http.get(f"{backends[0].url}{path}")).status == 404
