"""What a publish sends, and how it is answered."""

import asyncio
import json
from itertools import pairwise

import pytest

from gateway.api.publish import TURN
from gateway.errors import BusUnavailable, EnvelopeTooLarge
from tests.unit.api.fakes import Gateway

PUBLISH = "/v1/publish"
BATCH = "/v1/publish/batch"


def message(payload: str = "{}", **fields: object) -> str:
    """A publish request whose payload stands in it as given."""
    fields = {"topic": "room:1", "event": "said"} | fields
    head = json.dumps({name: value for name, value in fields.items() if value is not None})
    return f'{head[:-1]}, "payload": {payload}}}'


async def test_one_topic_is_answered_with_its_result(gateway: Gateway) -> None:
    answer = await gateway.post(PUBLISH, message('{"a": 1}', id="m-1"))

    assert answer.status == 202
    assert answer.media == "application/json"
    assert answer.json == {"id": "m-1", "results": [{"topic": "room:1", "position": None}]}
    assert gateway.relay.published == [("room:1", "said", b'{"a": 1}')]


@pytest.mark.parametrize(
    "payload",
    [
        '{ "a" :\t[ 1 ,\r\n 2 ]  }',
        '{"n": 123456789012345678901234567890, "f": 1.10, "e": 1E400, "z": -0}',
        '{"a": 1, "a": 2}',
        '{"ü": "日本 \U0001f600", "escaped": "\\u00fc\\ud83d\\ude00\\/"}',
        '{"line": "\u2028", "\x7f": ""}',
        "{}",
    ],
)
async def test_payload_is_passed_on_byte_for_byte(gateway: Gateway, payload: str) -> None:
    single = await gateway.post(PUBLISH, message(payload))
    batch = await gateway.post(BATCH, f'{{"messages": [{message(payload)}]}}')

    assert (single.status, batch.status) == (202, 202)
    assert [sent for _, _, sent in gateway.relay.published] == [payload.encode()] * 2


async def test_longest_names_pass(gateway: Gateway) -> None:
    topic, event = "room:" + "ü" * 125, "e" * 255

    answer = await gateway.post(PUBLISH, message(topic=topic, event=event))

    assert answer.status == 202
    assert gateway.relay.published == [(topic, event, b"{}")]


async def test_the_empty_event_is_one(gateway: Gateway) -> None:
    """Clients may push it, too."""
    assert (await gateway.post(PUBLISH, message(event=""))).status == 202
    assert gateway.relay.published == [("room:1", "", b"{}")]


async def test_made_up_ids_differ(gateway: Gateway) -> None:
    ids = {(await gateway.post(PUBLISH, message())).json["id"] for _ in range(3)}

    assert len(ids) == 3
    assert all(1 <= len(each) <= 128 for each in ids)


async def test_idempotency_key_is_the_id(gateway: Gateway) -> None:
    alone = await gateway.post(PUBLISH, message(), Idempotency_Key="key-1")
    beside = await gateway.post(PUBLISH, message(id="key-1"), Idempotency_Key="key-1")

    assert (alone.json["id"], beside.json["id"]) == ("key-1", "key-1")


async def test_idempotency_key_and_another_id_are_refused(gateway: Gateway) -> None:
    answer = await gateway.post(PUBLISH, message(id="m-1"), Idempotency_Key="m-2")

    assert (answer.status, answer.slug, answer.fields) == (422, "invalid", ["id"])
    assert gateway.relay.published == []


async def test_idempotency_key_keeps_the_rules_of_ids(gateway: Gateway) -> None:
    for key in ("x" * 129, "", "schlüssel"):
        answer = await gateway.post(PUBLISH, message(), Idempotency_Key=key)

        assert (answer.status, answer.fields) == (422, ["Idempotency-Key"])


async def test_idempotency_key_of_a_batch_is_refused(gateway: Gateway) -> None:
    answer = await gateway.post(BATCH, '{"messages": []}', Idempotency_Key="m-1")

    assert (answer.status, answer.fields) == (422, ["Idempotency-Key"])


async def test_several_topics_have_their_own_results_in_order(gateway: Gateway) -> None:
    gateway.relay.failures = {
        "room:down": BusUnavailable("gone"),
        "room:large": EnvelopeTooLarge(2000, 1500),
    }
    topics = ["room:1", "nowhere", "phoenix", "room:down", "room:large", "room:2"]

    answer = await gateway.post(PUBLISH, message(topic=None, topics=topics))

    results = answer.json["results"]
    assert answer.status == 202
    assert [result["topic"] for result in results] == topics
    assert [result["problem"]["status"] for result in results[1:5]] == [422, 422, 503, 413]
    assert [result["position"] for result in (results[0], results[5])] == [None, None]
    assert all(("problem" in result) != ("position" in result) for result in results)
    assert [topic for topic, _, _ in gateway.relay.published] == ["room:1", "room:2"]


async def test_topic_named_twice_gets_the_message_once(gateway: Gateway) -> None:
    topics = ["room:1", "room:2", "room:1"]

    answer = await gateway.post(PUBLISH, message(topic=None, topics=topics))

    assert [result["topic"] for result in answer.json["results"]] == topics
    assert [topic for topic, _, _ in gateway.relay.published] == ["room:1", "room:2"]


async def test_a_thousand_topics_are_taken(gateway: Gateway) -> None:
    topics = [f"room:{number}" for number in range(1000)]

    answer = await gateway.post(PUBLISH, message(topic=None, topics=topics))

    assert answer.status == 202
    assert [topic for topic, _, _ in gateway.relay.published] == topics


async def test_no_topic_taking_the_message_is_one_problem(gateway: Gateway) -> None:
    answer = await gateway.post(PUBLISH, message(topic=None, topics=["nowhere", "phoenix"]))

    assert (answer.status, answer.slug) == (422, "unmatched-topic")
    assert answer.fields == ["topics[0]", "topics[1]"]


async def test_bus_down_is_503_with_retry_after(gateway: Gateway) -> None:
    gateway.relay.failure = BusUnavailable("gone")

    one = await gateway.post(PUBLISH, message())
    several = await gateway.post(PUBLISH, message(topic=None, topics=["nowhere", "room:1"]))

    for answer in (one, several):
        assert (answer.status, answer.slug) == (503, "bus-unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json["detail"].endswith(": gone"), "what the bus said"


async def test_payload_above_the_limit_is_413(gateway: Gateway) -> None:
    fits = json.dumps({"t": "x" * 991})
    assert len(fits) == 1000

    allowed = await gateway.post(PUBLISH, message(fits))
    refused = await gateway.post(PUBLISH, message(f"{fits[:-1]} }}"))

    assert allowed.status == 202
    assert (refused.status, refused.slug, refused.fields) == (413, "too-large", ["payload"])
    assert len(gateway.relay.published) == 1


async def test_envelope_above_the_bus_limit_is_413(gateway: Gateway) -> None:
    gateway.relay.failure = EnvelopeTooLarge(2000, 1500)

    answer = await gateway.post(PUBLISH, message())

    assert (answer.status, answer.slug, answer.fields) == (413, "too-large", ["payload"])


async def test_batch_answers_each_message_in_order(gateway: Gateway) -> None:
    gateway.relay.failures = {"room:down": BusUnavailable("gone")}
    messages = [
        message('{"n": 0}', id="a"),
        "17",
        message("[]"),
        message(topic=None, users=["u" * 251]),
        message(event="phx_close"),
        message(topic="nowhere"),
        message(topic="room:down"),
        message(json.dumps({"t": "x" * 1000})),
        message('{"n": 1}', topic=None, topics=["room:1", "nowhere"], id="b"),
        message('{"n": 2}', id="c"),
    ]

    answer = await gateway.post(BATCH, f'{{"messages": [{", ".join(messages)}]}}')

    results = answer.json["results"]
    assert answer.status == 202
    assert [result.get("id") for result in results] == ["a", *[None] * 7, "b", "c"]
    assert [result["problem"]["status"] for result in results[1:8]] == [422] * 5 + [503, 413]
    assert [result["problem"]["errors"][0]["field"] for result in results[1:6]] == [
        "body",
        "payload",
        "users[0]",
        "event",
        "topic",
    ]
    assert results[8]["results"][1]["problem"]["status"] == 422
    assert all(("problem" in result) != ("results" in result) for result in results)
    assert [payload for _, _, payload in gateway.relay.published] == [
        b'{"n": 0}',
        b'{"n": 1}',
        b'{"n": 2}',
    ]


async def test_batch_is_202_while_the_bus_is_down(gateway: Gateway) -> None:
    gateway.relay.failure = BusUnavailable("gone")

    answer = await gateway.post(BATCH, f'{{"messages": [{message()}, {message()}]}}')

    assert answer.status == 202
    assert [result["problem"]["status"] for result in answer.json["results"]] == [503, 503]


async def test_batch_of_a_thousand_is_taken_and_one_more_is_not(gateway: Gateway) -> None:
    thousand = ",".join([message()] * 1000)

    taken = await gateway.post(BATCH, f'{{"messages": [{thousand}]}}')
    refused = await gateway.post(BATCH, f'{{"messages": [{thousand}, {message()}]}}')

    assert (taken.status, len(taken.json["results"])) == (202, 1000)
    assert (refused.status, refused.slug, refused.fields) == (422, "invalid", ["messages"])
    assert len(gateway.relay.published) == 1000


async def test_empty_batch_is_taken(gateway: Gateway) -> None:
    answer = await gateway.post(BATCH, '{"messages": []}')

    assert (answer.status, answer.json) == (202, {"results": []})


async def test_messages_of_a_batch_keep_their_order_however_many_targets_they_have(
    gateway: Gateway,
) -> None:
    topics = [f"room:{number}" for number in range(100)]
    some = [
        message(topic=None, topics=topics, event="first"),
        message(topic="room:99", event="second"),
        message(topic=None, users=["1", "2"], event="third"),
        message(topic=None, topics=topics[::-1], event="fourth"),
    ]
    answer = await gateway.post(BATCH, f'{{"messages": [{",".join(some)}]}}')

    assert [len(item["results"]) for item in answer.json["results"]] == [100, 1, 2, 100]
    events = [event for topic, event, _ in gateway.relay.published if topic == "room:99"]
    assert events == ["first", "second", "fourth"]


async def test_large_publish_lets_others_have_their_turn(gateway: Gateway) -> None:
    """A publish that never waits for the bus must not keep the loop to itself."""
    seen: list[int] = []

    async def other() -> None:
        while True:
            seen.append(len(gateway.relay.published))
            await asyncio.sleep(0)

    watcher = asyncio.create_task(other())
    topics = [f"room:{number}" for number in range(1000)]
    await gateway.post(PUBLISH, message(topic=None, topics=topics))
    thousand = ",".join([message()] * 1000)
    await gateway.post(BATCH, f'{{"messages": [{thousand}]}}')
    wide = ",".join([message(topic=None, topics=topics[:50])] * 100)
    await gateway.post(BATCH, f'{{"messages": [{wide}]}}')
    many = (gateway.post(BATCH, f'{{"messages": [{thousand}]}}') for _ in range(10))
    await asyncio.gather(*many)
    watcher.cancel()

    steps = [after - before for before, after in pairwise(seen)]
    assert 0 < max(steps) <= 2 * TURN, "however many requests there are"


async def test_publish_requests_are_counted_by_status(gateway: Gateway) -> None:
    await gateway.post(PUBLISH, message())
    await gateway.post(BATCH, '{"messages": []}')
    await gateway.post(PUBLISH, "{")
    await gateway.post(PUBLISH, message(), X_API_Key="wrong")
    gateway.relay.failure = BusUnavailable("gone")
    await gateway.post(PUBLISH, message())
    await gateway.client.get("/livez")
    await gateway.post("/v1/nothing", "")

    counts = gateway.publish_requests()
    assert counts == {"202": 2, "400": 1, "401": 1, "503": 1}


@pytest.mark.parametrize("listens", [True, False, None])
async def test_a_publish_to_users_says_whether_anybody_listens(
    gateway: Gateway, listens: bool | None
) -> None:
    known = {} if listens is None else {"listening": listens}
    gateway.relay.listeners = {} if listens is None else {"user:42": listens, "user:43": listens}
    gateway.relay.failures["user:43"] = BusUnavailable("down")
    single = await gateway.post(PUBLISH, message(topic=None, user="42"))
    several = await gateway.post(PUBLISH, message(topic=None, users=["42", "43", "42"]))
    one = message(topic=None, user="42")
    batch = await gateway.post(BATCH, f'{{"messages": [{one}, {message()}]}}')

    to_42 = {"topic": "user:42", "position": None} | known
    assert single.json["results"] == [to_42]
    assert several.json["results"][::2] == [to_42, to_42]
    assert several.json["results"][1].keys() == {"topic", "problem"}
    assert batch.json["results"][0]["results"] == [to_42]
    assert batch.json["results"][1]["results"] == [{"topic": "room:1", "position": None}]


async def test_a_publish_to_topics_does_not_ask_who_listens(gateway: Gateway) -> None:
    gateway.relay.listeners = {"user:42": False}

    for topics in ({"topic": "user:42"}, {"topic": None, "topics": ["user:42", "room:1"]}):
        answer = await gateway.post(PUBLISH, message(**topics))
        assert "listening" not in answer.json["results"][0]
    assert gateway.relay.checks == [None] * 3
