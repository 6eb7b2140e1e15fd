"""What the pages show and their forms do, and whom they ask for it."""

import json
import logging

import pytest
import structlog

from gateway.cluster import Cover
from gateway.console.lookup import SHOWN_SESSIONS
from gateway.device import Device
from gateway.errors import BusUnavailable
from gateway.hub.registry import Member
from gateway.sessions.commands import Session
from gateway.topics.commands import Figures, PresentUser
from gateway.tracker.entry import Entry
from tests.unit.console.conftest import KEYS, Desk

NASTY = '<b>"x"&</b>/ü'
SEGMENT = "%3Cb%3E%22x%22%26%3C%2Fb%3E%2F%C3%BC"

SESSION = Session(
    id="s-1", user="42", device=Device("d", "Ada's <phone>", "phone"), replica="b",
    transport="websocket", protocol="2.0.0", ip="192.0.2.7", user_agent="Firefox <1>",
    connected_at=1_700_000_000.0, last_seen_at=1_700_000_100.0, topics=("room:1", NASTY),
)  # fmt: skip


def entry(user: str) -> Entry:
    return Entry(id=f"s-{user}", user=user, ref="r", connected_at=0, online_at=0)


async def test_no_page_asks_another_replica(desk: Desk) -> None:
    cookie, _ = await desk.sign_in("ops")
    desk.here["42"] = [SESSION]
    for path in ("", "/users", "/users?name=4", "/users/42", "/topics", "/topics?name=r",
                 "/topics/room:1", "/publish", "/replica", "/keys"):  # fmt: skip
        assert (await desk.get(path, cookie))[0] == 200
    for _ in range(30):
        desk.console.tick()

    assert desk.directory.asked == []
    assert desk.topics.asked == []


async def test_a_users_devices_are_shown_and_nothing_of_them_is_markup(desk: Desk) -> None:
    cookie, token = await desk.sign_in("ops")
    desk.here["42"] = [SESSION]
    _, text = await desk.get("/users/42", cookie)
    desk.directory.listed, desk.directory.cover = [SESSION], Cover(("c",), False)
    status, asked = await desk.post("/users/42/ask", cookie, {"form_token": token})

    assert status == 200
    for shown in (text, asked):
        assert "Ada&#39;s &lt;phone&gt;" in shown
        assert f"/console/topics/{SEGMENT}" in shown
        assert "192.0.2.7" in shown
        assert "2023-11-14 22:13:20" in shown
    assert "no answer from c" in asked
    assert desk.directory.asked == [("sessions", "42")]


@pytest.mark.parametrize(("session", "only"), [("", ()), ("s-1", ("s-1",))])
async def test_sessions_are_closed_by_a_form_and_that_is_logged(
    desk: Desk, session: str, only: tuple[str, ...]
) -> None:
    cookie, token = await desk.sign_in("ops")
    desk.directory.number = 2
    with structlog.testing.capture_logs() as logs:
        status, text = await desk.post(
            "/users/42/close", cookie, {"form_token": token, "session": session}
        )

    assert (status, desk.directory.asked[0]) == (200, ("close", "42", only, ()))
    assert "2 closed." in text
    [line] = logs
    assert (line["event"], line["who"], line["action"]) == (
        "console action", "ops", "close sessions",
    )  # fmt: skip
    assert (line["user"], line["session"], line["closed"], line["outcome"]) == (
        "42", session or "all", 2, "done",
    )  # fmt: skip


async def test_a_topic_is_shown_as_known_here_and_everywhere_when_asked(desk: Desk) -> None:
    cookie, token = await desk.sign_in("reader")
    desk.present[NASTY] = [entry("ann"), entry("bob")]
    _, here = await desk.get(f"/topics/{SEGMENT}", cookie)
    desk.topics.total = Figures(channels=7, sessions=6, users=5)
    desk.topics.users = {"eve": PresentUser(2, ())}
    _, everywhere = await desk.post(f"/topics/{SEGMENT}/ask", cookie, {"form_token": token})

    assert "&lt;b&gt;" in here
    assert "<b>&" not in here
    assert "none matches" in here
    assert "ann" in here
    assert "7 members, 5 users" in everywhere
    assert desk.topics.asked[0] == (NASTY,)


async def test_an_open_tail_stays_open_when_a_form_of_the_page_is_sent(desk: Desk) -> None:
    cookie, token = await desk.sign_in("ops")
    form = {
        "form_token": token, "from": "topic", "topic": "room:1", "event": "e", "payload": "{}",
    }  # fmt: skip
    tail = 'data-live="console:tail:room:1"'
    _, closed = await desk.post("/publish", cookie, form)
    with structlog.testing.capture_logs() as logs:
        _, published = await desk.post("/publish", cookie, {**form, "tail": "1"})
        _, asked = await desk.post("/topics/room:1/ask", cookie, {**form, "tail": "1"})

    assert tail not in closed
    for page in (published, asked):
        assert tail in page
        assert page.count('name="tail"') == 2
    assert [(line["action"], line["topic"]) for line in logs] == [
        ("publish", "room:1"), ("tail", "room:1"), ("look up topic", "room:1"), ("tail", "room:1"),
    ]  # fmt: skip


async def test_topics_are_found_here_and_everywhere_when_asked(desk: Desk) -> None:
    cookie, token = await desk.sign_in("reader")
    for name in ("room:1", "room:2", "hall:1"):
        desk.registry.add(name, Member(_Outlet(), _Encoding(), drops=False))  # type: ignore[arg-type] # nobody is written to
    _, here = await desk.get("/topics?name=room", cookie)
    desk.topics.channels = {"room:9": 3}
    _, all_of_them = await desk.post("/topics/ask", cookie, {"form_token": token, "name": "room"})

    found = here.split('class="names"')[1].split("</ul>")[0]
    assert "room:1" in found
    assert "hall:1" not in found
    assert "room:9" in all_of_them
    assert desk.topics.asked == [("room", None, 50)]


class _Outlet:
    wire = None


class _Encoding:
    positions = False


@pytest.mark.parametrize(
    ("form", "outcome"),
    [
        ({"topic": "room:1", "event": "e", "payload": '{"a": 1}'}, "done"),
        ({"topic": "room:1", "event": "e", "payload": "[]"}, "invalid"),
        ({"topic": "room:1", "event": "e", "payload": '{}, "users": ["x"]'}, "invalid"),
        ({"topic": "room:1", "event": "e", "payload": '{"a": 1'}, "invalid"),
        ({"topic": "", "event": "e", "payload": "{}"}, "invalid"),
        ({"topic": "hall:1", "event": "e", "payload": "{}"}, "unmatched-topic"),
        ({"topic": "room:1", "event": "phx_close", "payload": "{}"}, "reserved-name"),
        ({"topic": "room:1", "event": "e", "payload": '{"a": "%s"}' % ("x" * 1001)}, "too-large"),
        ({}, "invalid"),
    ],
)
@pytest.mark.parametrize("page", ["topic", "publish"])
async def test_a_form_publishes_what_the_api_would(
    desk: Desk, form: dict[str, str], outcome: str, page: str
) -> None:
    cookie, token = await desk.sign_in("ops")
    with structlog.testing.capture_logs() as logs:
        status, text = await desk.post(
            "/publish", cookie, {"form_token": token, "from": page} | form
        )

    assert status == 200
    assert [(line["action"], line["outcome"]) for line in logs] == [("publish", outcome)]
    sent = [("room:1", "e", b'{"a": 1}')] if outcome == "done" else []
    assert desk.relay.published == sent
    assert 'role="status"' in text
    assert not form.get("payload") or form["payload"] not in repr(logs)


async def test_a_bus_that_is_down_is_said(desk: Desk) -> None:
    cookie, token = await desk.sign_in("shop")
    desk.relay.failure = BusUnavailable("not connected")
    form = {"topic": "room:1", "event": "e", "payload": "{}", "from": "topic"}
    status, text = await desk.post("/publish", cookie, {"form_token": token} | form)

    assert status == 200
    assert "The bus is unavailable" in text


async def test_a_drain_is_started_and_aborted_and_both_are_logged(desk: Desk) -> None:
    cookie, token = await desk.sign_in("ops")
    with structlog.testing.capture_logs() as logs:
        assert (await desk.post("/drain", cookie, {"form_token": token}))[0] == 303
        states = [desk.drain.state]
        assert (await desk.post("/drain/abort", cookie, {"form_token": token}))[0] == 303
        states.append(desk.drain.state)
        desk.drain.ending = True
        assert (await desk.post("/drain/abort", cookie, {"form_token": token}))[0] == 409

    assert states == ["draining", "serving"]
    done = [(x["who"], x["action"], x["outcome"]) for x in logs if x["action"] != "refused"]
    assert done == [
        ("ops", "start drain", "done"),
        ("ops", "abort drain", "done"),
        ("ops", "abort drain", "process is ending"),
    ]


async def test_the_configuration_is_shown_without_its_secrets(desk: Desk) -> None:
    cookie, _ = await desk.sign_in("reader")
    pages = [(await desk.get(path, cookie))[1] for path in ("/replica", "/keys")]

    assert "max_message_bytes" in pages[0]
    for name in KEYS:
        assert name in pages[1]
    for secret in (*KEYS.values(), "a secret of the tests"):
        assert all(secret not in page for page in pages)


async def test_the_last_warnings_are_shown(desk: Desk) -> None:
    cookie, _ = await desk.sign_in("reader")
    desk.lines.setFormatter(logging.Formatter("%(message)s"))
    for number in range(12):
        line = {
            "timestamp": "2026-01-02T03:04:05Z",
            "level": "warning",
            "event": f"<event {number}>",
        }
        desk.lines.emit(
            logging.LogRecord("x", logging.WARNING, "", 0, json.dumps(line | {"on": "b"}), (), None)
        )
    _, text = await desk.get("/replica", cookie)

    assert text.index("&lt;event 11&gt;") < text.index("&lt;event 2&gt;")
    assert "&lt;event 1&gt;" not in text  # only so many are kept


async def test_the_address_with_a_slash_leads_to_the_console(desk: Desk) -> None:
    assert (await desk.get("/"))[0] == 303


async def test_of_a_shared_account_not_all_sessions_are_listed(desk: Desk) -> None:
    cookie, _ = await desk.sign_in("ops")
    desk.here["42"] = [SESSION] * (SHOWN_SESSIONS + 1234)
    _, text = await desk.get("/users/42", cookie)

    assert text.count("<article") == SHOWN_SESSIONS
    assert "1\u202f234 more" in text
