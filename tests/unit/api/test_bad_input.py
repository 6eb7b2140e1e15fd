"""Bad publish requests: each has an exact answer, none is sent, and the API lives on."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gateway.api.body import MAX_BODY_BYTES, MAX_TOTAL_BYTES
from tests.support.waiting import eventually
from tests.unit.api.fakes import Gateway

PUBLISH = "/v1/publish"
BATCH = "/v1/publish/batch"

DEEP = b"[" * 100_000 + b"]" * 100_000

UNREADABLE = {
    "empty": b"",
    "not JSON": b"topic=room:1",
    "cut off": b'{"topic": "room:1", "event": "e"',
    "two documents": b'{"topic": "room:1", "event": "e", "payload": {}} {}',
    "trailing comma": b'{"topic": "room:1", "event": "e", "payload": {},}',
    "byte order mark": b'\xef\xbb\xbf{"topic": "room:1", "event": "e", "payload": {}}',
    "UTF-16": '{"topic": "room:1", "event": "e", "payload": {}}'.encode("utf-16"),
    "no UTF-8 in the payload": b'{"topic": "room:1", "event": "e", "payload": {"a": "\xff"}}',
    "overlong UTF-8": b'{"topic": "room:1", "event": "e", "payload": {"a": "\xc0\xaf"}}',
    "surrogate in UTF-8": b'{"topic": "room:1", "event": "e", "payload": {"a": "\xed\xa0\x80"}}',
    "no UTF-8 in the topic": b'{"topic": "room:\xff", "event": "e", "payload": {}}',
    "no UTF-8 in a key": b'{"topic": "room:1", "event": "e", "payload": {"\xff": 1}}',
    "half a surrogate pair": b'{"topic": "room:\\ud800", "event": "e", "payload": {}}',
    "half a pair in the payload": b'{"topic": "room:1", "event": "e", "payload": {"a": "\\ud800"}}',
    "NaN": b'{"topic": "room:1", "event": "e", "payload": {"a": NaN}}',
    "leading zero": b'{"topic": "room:1", "event": "e", "payload": {"a": 01}}',
    "bad escape": b'{"topic": "room:1", "event": "e", "payload": {"a": "\\x"}}',
    "raw newline": b'{"topic": "room:1", "event": "e", "payload": {"a": "\n"}}',
    "deep payload": b'{"topic": "room:1", "event": "e", "payload": {"a": %b}}' % DEEP,
}

INVALID = {
    "a list": (b"[]", ["body"]),
    "null": (b"null", ["body"]),
    "nothing": (b"{}", ["event"]),
    "no event": (b'{"topic": "room:1", "payload": {}}', ["event"]),
    "no payload": (b'{"topic": "room:1", "event": "e"}', ["payload"]),
    "no target": (b'{"event": "e", "payload": {}}', ["topic"]),
    "two targets": (
        b'{"topic": "room:1", "topics": ["room:2"], "event": "e", "payload": {}}',
        ["topics"],
    ),
    "null topic": (b'{"topic": null, "event": "e", "payload": {}}', ["topic"]),
    "empty topic": (b'{"topic": "", "event": "e", "payload": {}}', ["topic"]),
    "number as topic": (b'{"topic": 1, "event": "e", "payload": {}}', ["topic"]),
    "long topic": (b'{"topic": "%b", "event": "e", "payload": {}}' % (b"r" * 256), ["topic"]),
    "long topic in UTF-8": (
        b'{"topic": "%b", "event": "e", "payload": {}}' % ("ü" * 128).encode(),
        ["topic"],
    ),
    "no topics": (b'{"topics": [], "event": "e", "payload": {}}', ["topics"]),
    "string as topics": (b'{"topics": "room:1", "event": "e", "payload": {}}', ["topics"]),
    "number among topics": (
        b'{"topics": ["room:1", 2], "event": "e", "payload": {}}',
        ["topics[1]"],
    ),
    "empty among topics": (
        b'{"topics": ["room:1", ""], "event": "e", "payload": {}}',
        ["topics[1]"],
    ),
    "long among topics": (
        b'{"topics": ["room:1", "%b"], "event": "e", "payload": {}}' % ("ü" * 128).encode(),
        ["topics[1]"],
    ),
    "1,001 topics": (
        b'{"topics": [%b], "event": "e", "payload": {}}' % b",".join([b'"room:1"'] * 1001),
        ["topics"],
    ),
    "null event": (b'{"topic": "room:1", "event": null, "payload": {}}', ["event"]),
    "long event": (
        b'{"topic": "room:1", "event": "%b", "payload": {}}' % ("ü" * 128).encode(),
        ["event"],
    ),
    "null payload": (b'{"topic": "room:1", "event": "e", "payload": null}', ["payload"]),
    "list payload": (b'{"topic": "room:1", "event": "e", "payload": [{}]}', ["payload"]),
    "string payload": (b'{"topic": "room:1", "event": "e", "payload": "{}"}', ["payload"]),
    "empty id": (b'{"topic": "room:1", "event": "e", "payload": {}, "id": ""}', ["id"]),
    "number as id": (b'{"topic": "room:1", "event": "e", "payload": {}, "id": 1}', ["id"]),
    "long id": (
        b'{"topic": "room:1", "event": "e", "payload": {}, "id": "%b"}' % (b"i" * 129),
        ["id"],
    ),
    "newline in id": (
        b'{"topic": "room:1", "event": "e", "payload": {}, "id": "a\\n"}',
        ["id"],
    ),
    "several at once": (
        b'{"event": "e", "payload": [], "id": "\\u0000"}',
        ["topic", "payload", "id"],
    ),
    "three targets": (
        b'{"topic": "room:1", "user": "1", "users": ["1"], "event": "e", "payload": {}}',
        ["user", "users"],
    ),
    "empty user": (b'{"user": "", "event": "e", "payload": {}}', ["user"]),
    "null user": (b'{"user": null, "event": "e", "payload": {}}', ["user"]),
    "number as user": (b'{"user": 42, "event": "e", "payload": {}}', ["user"]),
    "long user": (b'{"user": "%b", "event": "e", "payload": {}}' % (b"u" * 256), ["user"]),
    "user whose topic is long": (
        b'{"user": "%b", "event": "e", "payload": {}}' % (b"u" * 251),
        ["user"],
    ),
    "no users": (b'{"users": [], "event": "e", "payload": {}}', ["users"]),
    "number among users": (b'{"users": ["1", 2], "event": "e", "payload": {}}', ["users[1]"]),
    "empty among users": (b'{"users": ["1", ""], "event": "e", "payload": {}}', ["users[1]"]),
    "long among users": (
        b'{"users": ["1", "%b"], "event": "e", "payload": {}}' % ("ü" * 126).encode(),
        ["users[1]"],
    ),
    "1,001 users": (
        b'{"users": [%b], "event": "e", "payload": {}}' % b",".join([b'"1"'] * 1001),
        ["users"],
    ),
    "string as sessions": (
        b'{"topic": "room:1", "event": "e", "payload": {}, "exclude_sessions": "s"}',
        ["exclude_sessions"],
    ),
    "number among devices": (
        b'{"topic": "room:1", "event": "e", "payload": {}, "exclude_devices": ["d", 1]}',
        ["exclude_devices[1]"],
    ),
    "long device type": (
        b'{"topic": "room:1", "event": "e", "payload": {}, "device_types": ["%b"]}' % (b"t" * 129),
        ["device_types[0]"],
    ),
    "101 sessions": (
        b'{"topic": "room:1", "event": "e", "payload": {}, "exclude_sessions": [%b]}'
        % b",".join([b'"s"'] * 101),
        ["exclude_sessions"],
    ),
}

RESERVED = [
    "phx_close",
    "phx_reply",
    "chan_reply_1",
    "presence_state",
    "presence_diff",
    "presence_count",
    "presence_update",
    "access_token",
    "position",
]


@pytest.fixture(autouse=True)
async def unharmed(gateway: Gateway) -> object:
    """After each bad request nothing was sent, and a good one is."""
    yield
    assert gateway.relay.published == []
    answer = await gateway.post(PUBLISH, b'{"topic": "room:1", "event": "e", "payload": {}}')
    assert answer.status == 202


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_unreadable_body_is_400(gateway: Gateway, body: bytes) -> None:
    answer = await gateway.post(PUBLISH, body)

    assert (answer.status, answer.slug) == (400, "unreadable")
    assert answer.json["detail"]


@pytest.mark.parametrize(
    "payload",
    [
        rb'{"a":"cut \ud83d"}',
        rb'{"a":"\uD83D", "b": "and so much more after it"}',
        rb'{"a":"\udc00"}',
        rb'{"a":"\ud83d\ud83d\ude00 and more"}',
    ],
)
@pytest.mark.parametrize("path", [PUBLISH, BATCH])
async def test_half_a_surrogate_pair_is_called_that(
    gateway: Gateway, path: str, payload: bytes
) -> None:
    message = b'{"topic": "room:1", "event": "e", "payload": %b}' % payload
    body = message if path == PUBLISH else b'{"messages": [%b]}' % message
    for each in (body, body.replace(b" ", b"")):
        answer = await gateway.post(path, each)
        assert answer.status == 400
        assert answer.json["detail"].startswith("Half of a surrogate pair before byte ")


@pytest.mark.parametrize("body", [b'{"topic": "\\ud83d\\ude00', b'{"topic": "\\ud83d\\ude'])
async def test_a_body_that_is_cut_off_is_called_that(gateway: Gateway, body: bytes) -> None:
    assert (await gateway.post(PUBLISH, body)).json["detail"] == "Input data was truncated."


@pytest.mark.parametrize(("body", "fields"), INVALID.values(), ids=INVALID.keys())
async def test_wrong_shape_is_422_and_names_the_field(
    gateway: Gateway, body: bytes, fields: list[str]
) -> None:
    answer = await gateway.post(PUBLISH, body)

    assert (answer.status, answer.slug, answer.fields) == (422, "invalid", fields)
    assert all(error["message"] for error in answer.json["errors"])


@pytest.mark.parametrize("event", RESERVED)
async def test_reserved_event_is_422(gateway: Gateway, event: str) -> None:
    answer = await gateway.post(
        PUBLISH, f'{{"topic": "room:1", "event": "{event}", "payload": {{}}}}'
    )

    assert (answer.status, answer.slug, answer.fields) == (422, "reserved-name", ["event"])


async def test_reserved_topic_is_422(gateway: Gateway) -> None:
    answer = await gateway.post(PUBLISH, b'{"topic": "phoenix", "event": "e", "payload": {}}')

    assert (answer.status, answer.slug, answer.fields) == (422, "reserved-name", ["topic"])


async def test_topic_without_a_rule_is_422(gateway: Gateway) -> None:
    answer = await gateway.post(PUBLISH, b'{"topic": "nowhere", "event": "e", "payload": {}}')

    assert (answer.status, answer.slug, answer.fields) == (422, "unmatched-topic", ["topic"])


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        (b'{"messages": [', 400, []),
        (b'{"messages": [{"a": "\xff"}]}', 400, []),
        (b'{"messages": [%b]}' % DEEP, 400, []),
        (b"[]", 422, ["body"]),
        (b"{}", 422, ["messages"]),
        (b'{"messages": {}}', 422, ["messages"]),
        (b'{"messages": [], "atomic": true}', 422, ["atomic"]),
    ],
)
async def test_bad_batch_is_refused_as_a_whole(
    gateway: Gateway, body: bytes, status: int, fields: list[str]
) -> None:
    answer = await gateway.post(BATCH, body)

    assert (answer.status, answer.fields) == (status, fields)
    assert answer.slug == {400: "unreadable", 422: "invalid"}[status]


@pytest.mark.parametrize("path", [PUBLISH, BATCH])
async def test_body_above_the_limit_is_413(gateway: Gateway, path: str) -> None:
    answer = await gateway.post(path, io.BytesIO(b" " * (MAX_BODY_BYTES + 1)))

    assert (answer.status, answer.slug) == (413, "too-large")


@asynccontextmanager
async def unfinished(gateway: Gateway) -> AsyncIterator[asyncio.StreamReader]:
    """A request whose body is awaited and does not come."""
    port = gateway.client.port
    assert port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"POST {PUBLISH} HTTP/1.1\r\nHost: x\r\nX-API-Key: publish-key\r\n"
        "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_does_not_end_is_given_up(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.api.body.BODY_SECONDS", 0.01)
    async with unfinished(gateway) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
    assert b" 408 " in head.split(b"\r\n")[0]
    assert gateway.publish_requests() == {"408": 1}


async def test_bodies_under_way_are_bounded(gateway: Gateway) -> None:
    async with AsyncExitStack() as bodies:
        for _ in range(MAX_TOTAL_BYTES // MAX_BODY_BYTES):
            await bodies.enter_async_context(unfinished(gateway))
        answer = await gateway.post(PUBLISH, b"{}")
        assert (answer.status, answer.slug) == (503, "busy")

    async def there_is_room() -> bool:
        return (await gateway.post(PUBLISH, b"{}")).slug == "invalid"

    await eventually(there_is_room)


@pytest.mark.parametrize(
    "media",
    ["application/x-www-form-urlencoded", "text/plain", "application/json-seq", "multipart/mixed"],
)
async def test_other_media_types_are_415(gateway: Gateway, media: str) -> None:
    answer = await gateway.post(PUBLISH, b"{}", Content_Type=media)

    assert (answer.status, answer.slug) == (415, "unsupported-media-type")


async def test_an_unknown_encoding_is_415(gateway: Gateway) -> None:
    answer = await gateway.post(PUBLISH, b"{}", Content_Encoding="foo")

    assert (answer.status, answer.slug) == (415, "unsupported-media-type")


async def test_media_type_may_have_parameters(gateway: Gateway) -> None:
    answer = await gateway.post(PUBLISH, b"", Content_Type="Application/JSON; charset=utf-8")

    assert answer.status == 400  # it was read


async def raw(gateway: Gateway, request: bytes, *, leave: bool = False) -> bytes:
    """What the listener answers to these bytes; with ``leave`` the client has gone by then."""
    server = gateway.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(request)
    if leave:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_media_type_may_be_absent(gateway: Gateway) -> None:
    answer = await raw(
        gateway,
        b"POST /v1/publish HTTP/1.1\r\nHost: g\r\nX-API-Key: publish-key\r\nConnection: close\r\n"
        b"Content-Length: 2\r\n\r\n{}",
    )

    assert b" 422 " in answer.splitlines()[0]


async def test_broken_compression_is_400(gateway: Gateway) -> None:
    answer = await gateway.post(PUBLISH, b"no gzip", Content_Encoding="gzip")

    assert (answer.status, answer.slug) == (400, "unreadable")


async def test_client_that_leaves_amid_its_body_is_no_failure(gateway: Gateway) -> None:
    await raw(
        gateway,
        b"POST /v1/publish HTTP/1.1\r\nHost: g\r\nX-API-Key: publish-key\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        leave=True,
    )

    assert "500" not in gateway.publish_requests()
