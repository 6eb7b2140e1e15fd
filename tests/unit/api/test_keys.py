"""Who may call what."""

import asyncio

import pytest

from gateway.api.keys import Keys
from gateway.api.problem import Refusal
from gateway.config.sections import ApiKeySettings
from tests.unit.api.fakes import CONFIG, Gateway

BODY = b'{"topic": "room:1", "event": "e", "payload": {}}'


@pytest.mark.parametrize(
    "header",
    [
        {"Authorization": "Bearer publish-key"},
        {"Authorization": "bearer   publish-key"},
        {"X-API-Key": "publish-key"},
        {"X-API-Key": "schlüssel"},
        {"Authorization": "Basic cHJveHk6c2VjcmV0", "X-API-Key": "publish-key"},
    ],
)
async def test_key_is_taken_from_either_header(gateway: Gateway, header: dict[str, str]) -> None:
    answer = await gateway.client.post(
        "/v1/publish", data=BODY, headers=header | {"Content-Type": "application/json"}
    )

    assert answer.status == 202


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic publish-key"},
        {"Authorization": "publish-key"},
        {"X-API-Key": ""},
        {"X-API-Key": "publish-ke"},
        {"X-API-Key": "publish-keyy"},
        {"X-API-Key": "PUBLISH-KEY"},
        {"Authorization": "Bearer wrong", "X-API-Key": "publish-key"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/v1/publish", "/v1/publish/batch", "/v1/nothing", "/v1/%70ublish"]
)
async def test_no_key_or_a_wrong_one_is_401_wherever_it_goes(
    gateway: Gateway, header: dict[str, str], path: str
) -> None:
    async with gateway.client.post(path, data=BODY, headers=header) as response:
        answer = await response.json(content_type="application/problem+json")

    assert response.status == 401
    assert answer["type"] == "urn:gateway:problem:unauthorized"
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert gateway.relay.published == []


async def test_header_that_is_no_utf_8_is_401(gateway: Gateway) -> None:
    server = gateway.client.server
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(
        b"GET /v1/x HTTP/1.1\r\nHost: g\r\nX-API-Key: \xff\xfe\r\nConnection: close\r\n\r\n"
    )

    answer = await reader.read()
    writer.close()
    await writer.wait_closed()

    assert b" 401 " in answer.splitlines()[0]


@pytest.mark.parametrize("path", ["/v1/publish", "/v1/publish/batch"])
@pytest.mark.parametrize(
    ("key", "status"), [("publish-key", 422), ("read-key", 403), ("manage-key", 403)]
)
async def test_scope_decides(gateway: Gateway, path: str, key: str, status: int) -> None:
    answer = await gateway.post(path, b"{}", X_API_Key=key)

    assert (answer.status, answer.slug) == (
        status,
        {422: "invalid", 403: "missing-scope"}[status],
    )


async def test_unknown_path_needs_no_scope_but_a_key(gateway: Gateway) -> None:
    answer = await gateway.post("/v1/nothing", b"", X_API_Key="read-key")

    assert (answer.status, answer.slug) == (404, "not-found")


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json", "/docs"]
)
async def test_probes_scrapers_and_docs_need_no_key(gateway: Gateway, path: str) -> None:
    assert (await gateway.client.get(path)).status == 200


def test_without_keys_nobody_is_let_in() -> None:
    nobody = Keys(())

    for headers in ({}, {"X-API-Key": ""}, {"Authorization": "Bearer "}):
        with pytest.raises(Refusal) as refused:
            nobody.scopes(headers)
        assert refused.value.problem.status == 401


def test_scopes_are_those_of_the_presented_key() -> None:
    keys = Keys(CONFIG.api.keys)

    assert keys.scopes({"X-API-Key": "read-key"}) == {"read"}
    assert keys.scopes({"X-API-Key": "schlüssel"}) == {"publish", "read", "manage"}


def test_a_key_configured_twice_has_the_scopes_of_both() -> None:
    keys = Keys(
        [
            ApiKeySettings(name="a", key="k", scopes=("read",)),
            ApiKeySettings(name="b", key="k", scopes=("publish",)),
        ]
    )

    assert keys.scopes({"X-API-Key": "k"}) == {"read", "publish"}
