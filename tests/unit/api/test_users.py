"""Calls about users, sessions and replicas: what is asked, and what is answered."""

import json

import pytest

from gateway.api.users import MAX_EXCEPTIONS
from gateway.cluster import Cover
from gateway.device import Device
from gateway.sessions.commands import Presence, Session
from tests.unit.api.fakes import Gateway

STATUS = "/v1/users/status"
WHOLE = {"complete": True, "missing_replicas": []}
PARTIAL = {"complete": False, "missing_replicas": ["b"]}

SESSION = Session(
    id="s-1",
    user="42",
    device=Device("d", type="phone"),
    replica="a",
    transport="websocket",
    protocol="2.0.0",
    ip="203.0.113.7",
    user_agent="curl",
    connected_at=1767323045.678,
    last_seen_at=1767323100.0,
    topics=("room:1", "user:42"),
)

SEGMENTS = {
    "plain": ("42", "42"),
    "slash": ("room%2F1", "room/1"),
    "small letters": ("room%2f1", "room/1"),
    "percent": ("100%25", "100%"),
    "percent twice": ("a%252Fb", "a%2Fb"),
    "percent that looks like a byte": ("a%25FF", "a%FF"),
    "colon": ("a:b", "a:b"),
    "blank": ("a%20b", "a b"),
    "plus": ("a+b", "a+b"),
    "question mark": ("a%3Fb", "a?b"),
    "hash": ("a%23b", "a#b"),
    "GUID": (
        "%7B3F2504E0-4F89-11D3-9A0C-0305E82C3301%7D",
        "{3F2504E0-4F89-11D3-9A0C-0305E82C3301}",
    ),
    "opening brace": ("a%7Bb", "a{b"),
    "bare braces": ("}{user}", "}{user}"),
    "umlaut": ("%C3%BC", "ü"),
    "emoji": ("%F0%9F%98%80", "\U0001f600"),
    "dots": ("...", "..."),
    "null": ("a%00b", "a\0b"),
    "longest": ("u" * 255, "u" * 255),
    "longest in UTF-8": ("%C3%BC" * 127, "ü" * 127),
}

TOO_LONG = {"letters": "u" * 256, "UTF-8": "%C3%BC" * 128, "emoji": "%F0%9F%98%80" * 64}


@pytest.mark.parametrize(
    ("presence", "answer"),
    [
        (Presence(), {"online": False, "sessions": 0, "last_seen_at": None}),
        (
            Presence(2, True, 1767323045.678),
            {"online": True, "sessions": 2, "last_seen_at": "2026-01-02T03:04:05.678Z"},
        ),
        # in the grace after her last session
        (
            Presence(0, True, 1767323045.0),
            {"online": True, "sessions": 0, "last_seen_at": "2026-01-02T03:04:05.000Z"},
        ),
    ],
)
@pytest.mark.parametrize("cover", [Cover(), Cover(("b",), complete=False)])
async def test_a_user(
    gateway: Gateway, presence: Presence, answer: dict[str, object], cover: Cover
) -> None:
    gateway.directory.known["42"] = presence
    gateway.directory.cover = cover

    found = await gateway.ask("GET", "/v1/users/42")

    about = {"complete": cover.complete, "missing_replicas": list(cover.missing)}
    assert (found.status, found.json) == (200, {"user": "42"} | answer | about)


async def test_a_user_no_replica_remembers_may_have_been_kept(gateway: Gateway) -> None:
    gateway.directory.kept = {"42": 1767323045.0, "43": 1767323045.0}
    gateway.directory.known["43"] = Presence(last_seen_at=1767323046.0)

    kept = await gateway.ask("GET", "/v1/users/42")
    remembered = await gateway.ask("GET", "/v1/users/43")

    assert kept.json["last_seen_at"] == "2026-01-02T03:04:05.000Z"
    assert remembered.json["last_seen_at"] == "2026-01-02T03:04:06.000Z"


async def test_the_status_of_users(gateway: Gateway) -> None:
    gateway.directory.known["42"] = Presence(2, True, 1.0)

    answer = await gateway.post(STATUS, '{"users": ["42", "43", "42"]}', X_API_Key="read-key")

    states = {"42": {"online": True, "sessions": 2}, "43": {"online": False, "sessions": 0}}
    assert (answer.status, answer.json) == (200, {"users": states} | WHOLE)
    assert gateway.directory.asked == [("presences", "42", "43")]


async def test_the_status_of_a_thousand_users_and_of_none(gateway: Gateway) -> None:
    for count in (0, 1000):
        users = [f"u{number}" for number in range(count)]
        answer = await gateway.post(STATUS, json.dumps({"users": users}), X_API_Key="read-key")

        assert answer.status == 200
        assert list(answer.json["users"]) == users


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ("{", 400, []),
        ("[]", 422, ["body"]),
        ("{}", 422, ["users"]),
        ('{"users": "42"}', 422, ["users"]),
        ('{"users": null}', 422, ["users"]),
        ('{"users": ["42", 43]}', 422, ["users[1]"]),
        ('{"users": ["42", ""]}', 422, ["users[1]"]),
        ('{"users": [], "topics": []}', 422, ["topics"]),
        (json.dumps({"users": ["u" * 256]}), 422, ["users[0]"]),
        (json.dumps({"users": ["u"] * 1001}), 422, ["users"]),
        ('{"users": ["\\ud800"]}', 400, []),
    ],
)
async def test_a_bad_status_request_is_refused(
    gateway: Gateway, body: str, status: int, fields: list[str]
) -> None:
    answer = await gateway.post(STATUS, body, X_API_Key="read-key")

    assert (answer.status, answer.fields) == (status, fields)
    assert gateway.directory.asked == []


async def test_the_sessions_of_a_user(gateway: Gateway) -> None:
    gateway.directory.listed = [SESSION]
    gateway.directory.cover = Cover(("b",), complete=False)

    answer = await gateway.ask("GET", "/v1/users/42/sessions")

    assert answer.status == 200
    assert answer.json == PARTIAL | {
        "items": [
            {
                "id": "s-1",
                "user": "42",
                "device": {"id": "d", "name": None, "type": "phone"},
                "replica": "a",
                "transport": "websocket",
                "protocol": "2.0.0",
                "ip": "203.0.113.7",
                "user_agent": "curl",
                "connected_at": "2026-01-02T03:04:05.678Z",
                "last_seen_at": "2026-01-02T03:05:00.000Z",
                "topics": ["room:1", "user:42"],
            }
        ]
    }


@pytest.mark.parametrize(
    ("query", "keep"),
    [
        ("", ()),
        ("?except=s-1", ("s-1",)),
        ("?except=s-1,s_2", ("s-1", "s_2")),
        ("?except=s-1,%20s-2", ("s-1", "s-2")),
        ("?except=s-1&except=s-2", ("s-1", "s-2")),
        (f"?except={','.join(['s'] * MAX_EXCEPTIONS)}", ("s",) * MAX_EXCEPTIONS),
    ],
)
async def test_closing_all_sessions_but_some(
    gateway: Gateway, query: str, keep: tuple[str, ...]
) -> None:
    gateway.directory.number = 3

    answer = await gateway.ask("DELETE", f"/v1/users/42/sessions{query}")

    assert (answer.status, answer.json) == (200, {"disconnected": 3} | WHOLE)
    assert gateway.directory.asked == [("close", "42", (), keep)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?except=", "except"),
        ("?except=s-1,", "except"),
        ("?except=a%20b", "except"),
        ("?except=%C3%BC", "except"),
        (f"?except={'s' * 65}", "except"),
        (f"?except={','.join(['s'] * (MAX_EXCEPTIONS + 1))}", "except"),
        # what was meant must not be guessed where it closes sessions
        ("?Except=s-1", "Except"),
        ("?only=s-1", "only"),
        ("?except=s-1&x", "x"),
    ],
)
async def test_a_bad_list_of_exceptions_closes_nothing(
    gateway: Gateway, query: str, field: str
) -> None:
    answer = await gateway.ask("DELETE", f"/v1/users/42/sessions{query}")

    assert (answer.status, answer.slug, answer.fields) == (422, "invalid", [field])
    assert gateway.directory.asked == []


async def test_closing_one_session(gateway: Gateway) -> None:
    gateway.directory.number = 1

    answer = await gateway.ask("DELETE", "/v1/users/42/sessions/s-1")

    assert (answer.status, answer.json) == (200, {"disconnected": 1} | WHOLE)
    assert gateway.directory.asked == [("close", "42", ("s-1",), ())]


@pytest.mark.parametrize("session", ["a%20b", "a,b", "a%2Fb", "%C3%BC", "*", "s" * 65, "a%00"])
async def test_what_is_no_id_of_a_session_closes_nothing(gateway: Gateway, session: str) -> None:
    answer = await gateway.ask("DELETE", f"/v1/users/42/sessions/{session}")

    assert (answer.status, answer.slug, answer.fields) == (422, "invalid", ["id"])
    assert gateway.directory.asked == []


async def test_taking_a_user_off_a_topic(gateway: Gateway) -> None:
    gateway.directory.number = 2
    gateway.directory.cover = Cover(("b",), complete=False)

    answer = await gateway.ask("DELETE", "/v1/topics/room%2F1/users/a%2Fb")

    assert (answer.status, answer.json) == (200, {"removed": 2} | PARTIAL)
    assert gateway.directory.asked == [("leave_topic", "a/b", "room/1")]


async def test_the_replicas(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", "/v1/replicas")

    assert (answer.status, answer.json) == (
        200,
        {
            "items": [
                {"id": "a", "self": True, "sessions": 2, "connections": 3},
                {"id": "b", "self": False, "sessions": 4, "connections": 5},
            ]
        },
    )


@pytest.mark.parametrize(("segment", "name"), SEGMENTS.values(), ids=SEGMENTS.keys())
async def test_a_name_is_one_percent_encoded_segment(
    gateway: Gateway, segment: str, name: str
) -> None:
    user = await gateway.ask("GET", f"/v1/users/{segment}")
    await gateway.ask("GET", f"/v1/users/{segment}/sessions")
    await gateway.ask("DELETE", f"/v1/topics/{segment}/users/{segment}")

    assert user.json["user"] == name
    assert gateway.directory.asked == [
        ("presences", name),
        ("sessions", name),
        ("leave_topic", name, name),
    ]


@pytest.mark.parametrize("segment", TOO_LONG.values(), ids=TOO_LONG.keys())
@pytest.mark.parametrize(
    ("method", "path", "field"),
    [
        ("GET", "/v1/users/{}", "user"),
        ("GET", "/v1/users/{}/sessions", "user"),
        ("DELETE", "/v1/users/{}/sessions", "user"),
        ("DELETE", "/v1/users/{}/sessions/s", "user"),
        ("DELETE", "/v1/topics/room/users/{}", "user"),
        ("DELETE", "/v1/topics/{}/users/42", "topic"),
    ],
)
async def test_a_name_that_is_too_long_is_422(
    gateway: Gateway, method: str, path: str, field: str, segment: str
) -> None:
    answer = await gateway.ask(method, path.format(segment))

    assert (answer.status, answer.slug, answer.fields) == (422, "invalid", [field])
    assert gateway.directory.asked == []


@pytest.mark.parametrize("segment", ["%FF", "a%C0%AF", "%ED%A0%80"])
async def test_a_name_that_is_no_utf8_is_422(gateway: Gateway, segment: str) -> None:
    answer = await gateway.ask("GET", f"/v1/users/{segment}")

    assert (answer.status, answer.slug, answer.fields) == (422, "invalid", ["user"])


@pytest.mark.parametrize("path", ["/v1/users/", "/v1/users//sessions", "/v1/topics//users/42"])
async def test_an_empty_name_is_no_path(gateway: Gateway, path: str) -> None:
    answer = await gateway.ask("GET" if "topics" not in path else "DELETE", path)

    assert (answer.status, answer.slug) == (404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "key"),
    [
        ("GET", "/v1/users/42", "manage-key"),
        ("GET", "/v1/users/42/sessions", "publish-key"),
        ("GET", "/v1/replicas", "publish-key"),
        ("DELETE", "/v1/users/42/sessions", "read-key"),
        ("DELETE", "/v1/users/42/sessions/s", "read-key"),
        ("DELETE", "/v1/topics/room:1/users/42", "read-key"),
    ],
)
async def test_each_call_needs_its_scope(
    gateway: Gateway, method: str, path: str, key: str
) -> None:
    answer = await gateway.ask(method, path, key)

    assert (answer.status, answer.slug) == (403, "missing-scope")
    assert gateway.directory.asked == []


async def test_a_user_called_status_can_be_asked_for(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", STATUS)

    assert (answer.status, answer.json["user"]) == (200, "status")
