"""Who is let in, and who is refused and logged."""

import asyncio
import zlib
from typing import Any

import pytest
import structlog
from aiohttp import WSServerHandshakeError

from gateway.console.guard import LONGEST_LOGGED
from gateway.console.sign_in import COOKIE, HOURS
from tests.unit.console.conftest import KEYS, Desk

FORMS = [
    "/sign-out",
    "/users/42/ask",
    "/users/42/close",
    "/topics/ask",
    "/topics/room:1/ask",
    "/publish",
    "/drain",
    "/drain/abort",
]
PAGES = ["", "/users", "/users/42", "/topics", "/topics/room:1", "/publish", "/replica", "/keys"]
MANAGED = ["/users/42/close", "/drain", "/drain/abort"]


def asked(desk: Desk) -> list[Any]:
    """All that was asked of others, or done."""
    drained = ["drain"] if desk.drain.draining else []
    return [*desk.directory.asked, *desk.topics.asked, *desk.relay.published, *drained]


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "made.up.cookie.of-ours",
        "a.b",
        "ä" * 20,
        "x" * 2000,
        f"a.{'9' * 400}.b3Bz.mac",  # more than a float can be
    ],
)
async def test_without_a_sign_in_pages_lead_there_and_forms_are_refused(
    desk: Desk, cookie: str
) -> None:
    for path in PAGES:
        assert (await desk.get(path, cookie))[0] == 303
    for path in FORMS:
        with structlog.testing.capture_logs() as logs:
            assert (await desk.post(path, cookie))[0] == 403
        assert [line["action"] for line in logs] == ["refused"]
    assert asked(desk) == []


async def test_a_wrong_key_is_refused_and_logged_without_it(desk: Desk) -> None:
    for key in ("", "wrong", KEYS["ops"][:-1], KEYS["ops"].upper()):
        with structlog.testing.capture_logs() as logs:
            status, text = await desk.post("/sign-in", form={"key": key})
        assert status == 403
        assert 'role="alert"' in text
        assert [(line["action"], line["outcome"]) for line in logs] == [("refused", "unknown key")]
        assert not key or key not in repr(logs)


@pytest.mark.parametrize("path", MANAGED)
async def test_a_read_only_key_may_press_nothing(desk: Desk, path: str) -> None:
    cookie, token = await desk.sign_in("reader")
    with structlog.testing.capture_logs() as logs:
        status, _ = await desk.post(path, cookie, {"form_token": token})

    assert status == 403
    assert asked(desk) == []
    [line] = logs
    assert (line["who"], line["action"], line["outcome"]) == ("reader", "refused", "scope manage")
    assert line["route"].removeprefix("/console") in path.replace("42", "{user}")


async def test_a_key_sees_what_its_scopes_let_it(desk: Desk) -> None:
    reader, _ = await desk.sign_in("reader")
    shop, token = await desk.sign_in("shop")

    assert [(await desk.get(path, reader))[0] for path in PAGES] == [200] * 5 + [403] + [200] * 2
    assert [(await desk.get(path, shop))[0] for path in PAGES] == [200, *[403] * 4, 200, *[403] * 2]
    assert (await desk.post("/topics/room:1/ask", shop, {"form_token": token}))[0] == 403
    _, overview = await desk.get("", shop)
    assert "/console/publish" in overview
    assert "/console/users" not in overview
    _, replica = await desk.get("/replica", reader)
    assert "/console/drain" not in replica


@pytest.mark.parametrize("path", FORMS)
async def test_a_forged_form_is_refused_and_logged(desk: Desk, path: str) -> None:
    cookie, token = await desk.sign_in("ops")
    _, others = await desk.sign_in("ops")
    for form in ({}, {"form_token": ""}, {"form_token": others}, {"form_token": token[:-1]}):
        with structlog.testing.capture_logs() as logs:
            status, _ = await desk.post(path, cookie, form)
        assert status == 403
        assert [(x["who"], x["action"], x["outcome"]) for x in logs] == [
            ("ops", "refused", "form token")
        ]
    assert asked(desk) == []
    assert desk.console.sign_ins.read(cookie) is not None


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        "null",
        "",
        "http://[",
        None,
    ],
)
async def test_a_stolen_cookie_from_another_origin_is_refused_and_logged(
    desk: Desk, origin: str | None
) -> None:
    """Another port of the same host is another origin, to which browsers send the cookie all the same."""
    cookie, token = await desk.sign_in("ops")
    headers = {} if origin is None else {"Origin": origin}
    for path in ("/drain", "/users/42/close", "/publish", "/sign-in"):
        with structlog.testing.capture_logs() as logs:
            assert (await desk.post(path, cookie, {"form_token": token}, headers))[0] == 403
        assert [(x["action"], x["outcome"]) for x in logs] == [("refused", "origin")]
    if origin is not None:
        assert (await desk.get("/users", cookie, headers))[0] == 403
    with pytest.raises(WSServerHandshakeError) as refused:
        await desk.client.ws_connect(
            "/console/socket/websocket", headers=headers | {"Cookie": f"{COOKIE}={cookie}"}
        )
    assert refused.value.status == 403
    assert asked(desk) == []


async def test_a_socket_needs_a_sign_in(desk: Desk) -> None:
    with pytest.raises(WSServerHandshakeError) as refused:
        await desk.client.ws_connect("/console/socket/websocket", headers={"Origin": desk.origin})

    assert refused.value.status == 403


async def test_a_sign_in_ends_by_time_and_by_hand(desk: Desk) -> None:
    early, _ = await desk.sign_in("ops")
    late, token = await desk.sign_in("ops")
    assert (await desk.post("/sign-out", late, {"form_token": token}))[0] == 303
    assert (await desk.get("/users", late))[0] == 303
    assert (await desk.get("/users", early))[0] == 200
    desk.clock.now += HOURS * 3600

    assert (await desk.get("/users", early))[0] == 303


async def test_the_cookie_is_for_this_console_alone(desk: Desk) -> None:
    async with desk.client.post(
        "/console/sign-in",
        data={"key": KEYS["ops"]},
        headers={"Origin": desk.origin},
        allow_redirects=False,
    ) as answer:
        cookie = answer.headers["Set-Cookie"]

    for part in ("HttpOnly", "SameSite=Strict", "Path=/console", f"Max-Age={HOURS * 3600}"):
        assert part in cookie
    assert KEYS["ops"] not in cookie
    assert "Secure" not in cookie  # the browser came by plain HTTP


async def test_every_answer_is_a_page_that_loads_nothing_from_elsewhere(desk: Desk) -> None:
    cookie, _ = await desk.sign_in("ops")
    for path in [*PAGES, "/nothing", "/sign-in"]:
        async with desk.client.get(
            f"/console{path}", headers={"Cookie": f"{COOKIE}={cookie}"}, allow_redirects=False
        ) as answer:
            policy = answer.headers["Content-Security-Policy"]
            text = await answer.text()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "style=" not in text
        assert "http:" not in text
        assert "https:" not in text


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "application/json"},
        {"Content-Type": "multipart/form-data"},
        {"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "deflate"},
    ],
)
async def test_only_forms_are_taken(desk: Desk, headers: dict[str, str]) -> None:
    sent = headers | {"Origin": desk.origin}
    async with desk.client.post(
        "/console/sign-in", data=zlib.compress(b"key=x"), headers=sent
    ) as answer:
        assert answer.status == 415


async def test_a_form_is_bounded_and_more_so_of_strangers(desk: Desk) -> None:
    cookie, token = await desk.sign_in("ops")
    assert (await desk.post("/sign-in", form={"key": "x" * 4100}))[0] == 413
    assert (await desk.post("/publish", cookie, {"form_token": token, "payload": "x" * 4100}))[
        0
    ] == 200
    assert (await desk.post("/publish", cookie, {"payload": "x" * 10_000}))[0] == 413


@pytest.mark.parametrize("charset", ["nonsense", "zip", "utf-16", "unicode_escape"])
@pytest.mark.parametrize("value", [b"\\ud800", b"\xff", b"%ff%ed%a0%80"])
async def test_a_form_is_read_as_utf8_whatever_it_says(
    desk: Desk, charset: str, value: bytes
) -> None:
    cookie, _ = await desk.sign_in("ops")
    headers = {
        "Content-Type": f"application/x-www-form-urlencoded; charset={charset}",
        "Origin": desk.origin,
        "Cookie": f"{COOKIE}={cookie}",
    }
    for path, field in (("/console/sign-in", b"key"), ("/console/publish", b"form_token")):
        async with desk.client.post(path, data=field + b"=" + value, headers=headers) as answer:
            assert answer.status == 403


async def test_a_page_that_fails_has_the_headers_of_one(desk: Desk) -> None:
    cookie, _ = await desk.sign_in("ops")
    desk.lines.lines.append("no JSON")
    with structlog.testing.capture_logs() as logs:
        async with desk.client.get(
            "/console/replica", headers={"Cookie": f"{COOKIE}={cookie}"}
        ) as answer:
            assert (answer.status, answer.content_type) == (500, "text/html")
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["request failed"]
    assert (await desk.get("", cookie))[0] == 200


async def test_texts_that_were_made_up_are_cut_off_in_the_log(desk: Desk) -> None:
    cookie, token = await desk.sign_in("ops")
    form = {"form_token": token, "topic": "t" * 2000, "event": "e" * 2000, "payload": "{}"}
    with structlog.testing.capture_logs() as logs:
        await desk.post("/publish", cookie, form)

    [line] = logs
    assert line["action"] == "publish"
    assert len(line["topic"]) == len(line["event_name"]) == LONGEST_LOGGED


async def test_many_strangers_fill_no_log(desk: Desk) -> None:
    with structlog.testing.capture_logs() as logs:
        await asyncio.gather(*(desk.post("/drain") for _ in range(5)))

    assert {line["throttle"] for line in logs} == {"no sign-in"}
