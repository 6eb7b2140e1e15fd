"""What was kept, read and erased over HTTP; and what a publish says of it."""

import json

import pytest

from gateway.api.history import item
from gateway.audience import Audience
from gateway.errors import BusUnavailable, HistoryUnavailable, OutcomeUnknown
from gateway.relay import Published
from tests.unit.api.fakes import Gateway

HISTORY = "/v1/topics/room%3A1/history"
PUBLISH = "/v1/publish"


def message(**fields: object) -> str:
    """A publish request."""
    return json.dumps({"topic": "room:1", "event": "said", "payload": {}} | fields)


async def test_a_page_shows_messages_with_their_positions(gateway: Gateway) -> None:
    audience = Audience(frozenset(), frozenset({"d1"}), frozenset({"tv", "phone"}))
    gateway.archive.items = [item("@e.1.1", 1767323045.678, "said", b'{"n": 1.50}', audience)]
    gateway.archive.more = "@e.1.1"

    answer = await gateway.ask("GET", f"{HISTORY}?limit=1&cursor=@e.0.0", "read-key")

    assert gateway.archive.asked == [("room:1", "@e.0.0", 1)]
    assert answer.status == 200
    assert answer.json == {
        "items": [
            {
                "position": "@e.1.1",
                "time": "2026-01-02T03:04:05.678Z",
                "event": "said",
                "payload": {"n": 1.5},
                "exclude_sessions": [],
                "exclude_devices": ["d1"],
                "device_types": ["phone", "tv"],
            }
        ],
        "position": "@e.9.9",
        "next": "@e.1.1",
    }


async def test_a_page_has_a_hundred_messages_if_nothing_else_is_said(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", HISTORY)

    assert answer.json == {"items": [], "position": "@e.9.9", "next": None}
    assert gateway.archive.asked == [("room:1", None, 100)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=%C2%B2", "limit"),
        ("after=@e.1.1", "after"),
    ],
)
async def test_a_bad_query_is_refused(gateway: Gateway, query: str, field: str) -> None:
    answer = await gateway.ask("GET", f"{HISTORY}?{query}")

    assert (answer.status, answer.fields) == (422, [field])
    assert gateway.archive.asked == []


@pytest.mark.parametrize(
    ("method", "failure", "status"),
    [
        ("GET", ValueError(), 422),
        ("GET", BusUnavailable("gone"), 503),
        ("GET", HistoryUnavailable("no_jetstream", "x"), 503),
        ("DELETE", HistoryUnavailable("unavailable", "x"), 503),
        ("DELETE", OutcomeUnknown(), 504),
    ],
)
async def test_what_cannot_be_done_is_said(
    gateway: Gateway, method: str, failure: Exception, status: int
) -> None:
    gateway.archive.failure = failure

    answer = await gateway.ask(method, HISTORY)

    assert answer.status == status
    assert status != 503 or answer.json["detail"].endswith(f": {failure}"), "what the bus said"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_topic_that_keeps_nothing_has_no_history(gateway: Gateway, method: str) -> None:
    answer = await gateway.ask(method, "/v1/topics/lobby/history")

    assert (answer.status, answer.slug) == (404, "not-found")


async def test_erasing_says_how_many_and_needs_another_scope(gateway: Gateway) -> None:
    assert (await gateway.ask("DELETE", HISTORY, "read-key")).status == 403
    assert (await gateway.ask("GET", HISTORY, "publish-key")).status == 403
    assert (await gateway.ask("DELETE", HISTORY, "manage-key")).json == {"erased": 12}


async def test_a_publish_says_where_the_message_stands(gateway: Gateway) -> None:
    gateway.relay.answer = Published("@e.1.1")
    first = await gateway.post(PUBLISH, message(id="m-1"))
    gateway.relay.answer = Published("@e.1.1", duplicate=True)
    again = await gateway.post(PUBLISH, message(), Idempotency_Key="m-1")

    assert first.json["results"] == [{"topic": "room:1", "position": "@e.1.1"}]
    assert again.json["results"] == [{"topic": "room:1", "position": "@e.1.1", "duplicate": True}]
    assert gateway.relay.ids == ["m-1", "m-1"]


async def test_a_publish_whose_outcome_nobody_knows_is_504_and_names_the_id(
    gateway: Gateway,
) -> None:
    gateway.relay.failure = OutcomeUnknown()
    answer = await gateway.post(PUBLISH, message())

    assert (answer.status, answer.slug) == (504, "outcome-unknown")
    [made_up] = gateway.relay.tried
    assert made_up in answer.json["detail"], "or it could not be repeated"


async def test_of_several_targets_one_that_may_have_it_makes_the_answer_504(
    gateway: Gateway,
) -> None:
    gateway.relay.failures = {"room:1": BusUnavailable(), "room:2": OutcomeUnknown()}
    body = {"topics": ["room:1", "room:2"], "event": "said", "payload": {}}
    answer = await gateway.post(PUBLISH, json.dumps(body))

    assert answer.status == 504
