"""Calls about topics: what is asked, and what is answered."""

import asyncio
from typing import Any

import pytest

from gateway.api import topics as calls
from gateway.cluster import Cover
from gateway.device import Device
from gateway.errors import HistoryUnavailable
from gateway.topics.commands import Figures, PresentUser
from gateway.tracker.entry import Entry
from tests.unit.api.fakes import Gateway

WHOLE = {"complete": True, "missing_replicas": []}
PARTIAL = {"complete": False, "missing_replicas": ["b"]}
NOBODY = {"channels": 0, "sessions": 0, "users": 0}


@pytest.mark.parametrize("cover", [Cover(), Cover(("b",), complete=False)])
async def test_topics_are_listed(gateway: Gateway, cover: Cover) -> None:
    gateway.topics.channels = {"room:1": 12, "room:2": 1}
    gateway.topics.following, gateway.topics.cover = "room:2", cover

    answer = await gateway.ask(
        "GET", "/v1/topics?prefix=room%3A&cursor=room%3A0&limit=2", "read-key"
    )

    assert gateway.topics.asked == [("room:", "room:0", 2)]
    items = [{"topic": "room:1", "channels": 12}, {"topic": "room:2", "channels": 1}]
    about = WHOLE if cover.complete else PARTIAL
    assert (answer.status, answer.json) == (200, {"items": items, "next": "room:2"} | about)


async def test_a_list_has_a_hundred_topics_if_nothing_else_is_said(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", "/v1/topics")

    assert answer.json == {"items": [], "next": None} | WHOLE
    assert gateway.topics.asked == [("", None, 100)]


async def test_a_topic_is_shown_with_its_rule_and_the_ends_of_its_history(gateway: Gateway) -> None:
    gateway.topics.here, gateway.topics.total = Figures(2, 1, 1, (7,)), Figures(5, 4, 3)

    answer = await gateway.ask("GET", "/v1/topics/room%3A1", "read-key")

    assert answer.status == 200
    assert answer.json == WHOLE | {
        "topic": "room:1",
        "here": {"channels": 2, "sessions": 1, "users": 1},
        "all": {"channels": 5, "sessions": 4, "users": 3},
        "history": {"first": "@e.1.1", "last": "@e.9.9"},
        "rule": {
            "pattern": "room:*",
            "join": "authenticated",
            "push": "deny",
            "echo": True,
            "presence": False,
            "history": {"messages": 100, "seconds": 300},
            "slow_consumer": "disconnect",
        },
    }


async def test_a_topic_may_keep_nothing_and_hit_no_rule(gateway: Gateway) -> None:
    personal = await gateway.ask("GET", "/v1/topics/user%3A42")
    unmatched = await gateway.ask("GET", "/v1/topics/nowhere")

    assert personal.json["rule"]["pattern"] == "user:{sub}"
    assert personal.json["history"] is None
    nowhere = {"topic": "nowhere", "here": NOBODY, "all": NOBODY, "history": None, "rule": None}
    assert (unmatched.status, unmatched.json) == (200, nowhere | WHOLE)
    assert gateway.archive.asked == []


@pytest.mark.parametrize("silent", [False, True])
async def test_a_store_that_does_not_answer_makes_the_answer_incomplete(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    async def never(_: str) -> Any:
        await asyncio.Event().wait()

    gateway.archive.failure = HistoryUnavailable("unavailable", "x")
    if silent:
        monkeypatch.setattr(gateway.archive, "ends", never)
        monkeypatch.setattr(calls, "ANSWER_SECONDS", 0.01)

    answer = await gateway.ask("GET", "/v1/topics/room%3A1")

    assert (answer.status, answer.json["history"]) == (200, None)
    assert (answer.json["complete"], answer.json["missing_replicas"]) == (False, [])


async def test_who_is_present_is_shown_as_clients_see_it(gateway: Gateway) -> None:
    phone = Device("d", type="phone")
    entries = (
        Entry("s1", "42", "r1", 5.0, 7.9, phone, b'{"typing": 1.50}'),
        Entry("s2", "42", "r3", 6.0, 7.0, previous_ref="r2"),
    )
    gateway.topics.users = {"42": PresentUser(300, entries)}
    gateway.topics.following, gateway.topics.cover = "42", Cover(("b",), complete=False)

    answer = await gateway.ask(
        "GET", "/v1/topics/watched%3A1/presence?limit=1&cursor=41", "read-key"
    )

    assert gateway.topics.asked == [("watched:1", "41", 1)]
    metas = [
        {"phx_ref": "r1", "online_at": 7, "device_type": "phone", "typing": 1.5},
        {"phx_ref": "r3", "online_at": 7, "phx_ref_prev": "r2"},
    ]
    items = [{"user": "42", "sessions": 300, "metas": metas}]
    assert (answer.status, answer.json) == (200, {"items": items, "next": "42"} | PARTIAL)


@pytest.mark.parametrize("topic", ["room:1", "nowhere"])
async def test_a_topic_without_presence_shows_nobody(gateway: Gateway, topic: str) -> None:
    answer = await gateway.ask("GET", f"/v1/topics/{topic}/presence")

    assert (answer.status, answer.slug) == (404, "not-found")
    assert gateway.topics.asked == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/topics?limit=0", "limit"),
        ("/v1/topics?limit=1001", "limit"),
        ("/v1/topics?limit=0000000011001", "limit"),
        (f"/v1/topics?limit=000000001{'0' * 5000}", "limit"),
        ("/v1/topics?after=x", "after"),
        ("/v1/topics?prefix=" + "x" * 256, "prefix"),
        ("/v1/topics?cursor=" + "%C3%BC" * 128, "cursor"),
        ("/v1/topics/" + "x" * 256, "topic"),
        ("/v1/topics/watched%3A1/presence?limit=x", "limit"),
        ("/v1/topics/watched%3A1/presence?prefix=x", "prefix"),
        ("/v1/topics/watched%3A1/presence?cursor=" + "x" * 256, "cursor"),
    ],
)
async def test_a_bad_question_is_refused(gateway: Gateway, path: str, field: str) -> None:
    answer = await gateway.ask("GET", path)

    assert (answer.status, answer.fields) == (422, [field])
    assert gateway.topics.asked == []


@pytest.mark.parametrize(
    "path", ["/v1/topics", "/v1/topics/room:1", "/v1/topics/watched:1/presence"]
)
async def test_only_a_reader_may_ask(gateway: Gateway, path: str) -> None:
    assert (await gateway.ask("GET", path, "publish-key")).status == 403
    assert (await gateway.ask("GET", path, "read-key")).status == 200
