"""Revoking tokens over HTTP: what is asked, what is refused, and what is answered."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from gateway.auth.revocations import Revocation
from gateway.cluster import Cover
from gateway.errors import BusUnavailable
from tests.unit.api.fakes import Gateway

REVOKE = "/v1/tokens/revoke"
KEY = "manage-key"
THEN = 1767323045.678
LEEWAY = 10


def in_seconds(seconds: float) -> str:
    """A time from now on, as a request states it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("body", "claim", "value"),
    [
        ('{"user": "42"}', "sub", "42"),
        ('{"user": "\\u00fc:/ "}', "sub", "ü:/ "),
        (json.dumps({"user": "u" * 255}), "sub", "u" * 255),
        ('{"jti": "a-b"}', "jti", "a-b"),
        (json.dumps({"jti": "j" * 255}), "jti", "j" * 255),
    ],
)
async def test_tokens_are_revoked_from_now_on(
    gateway: Gateway, body: str, claim: str, value: str
) -> None:
    gateway.revoker.number = 2
    before = time.time()

    answer = await gateway.post(REVOKE, body, X_API_Key=KEY)

    whole = {"disconnected": 2, "complete": True, "missing_replicas": []}
    assert (answer.status, answer.json) == (200, whole)
    [revoked] = gateway.revoker.revoked
    assert (revoked.claim, revoked.value) == (claim, value)
    assert before <= revoked.issued_before <= time.time()


@pytest.mark.parametrize(
    "stated",
    [
        "2026-01-02T03:04:05.678Z",
        "2026-01-02t03:04:05.678z",
        "2026-01-02T04:04:05.678+01:00",
        "2026-01-01T22:34:05.678-04:30",
    ],
)
async def test_tokens_are_revoked_from_a_stated_time_on(gateway: Gateway, stated: str) -> None:
    body = json.dumps({"user": "42", "issued_before": stated})
    answer = await gateway.post(REVOKE, body, X_API_Key=KEY)

    assert answer.status == 200
    assert gateway.revoker.revoked == [Revocation("sub", "42", THEN)]


async def test_clocks_may_differ_a_little(gateway: Gateway) -> None:
    body = json.dumps({"user": "42", "issued_before": in_seconds(LEEWAY - 1)})

    assert (await gateway.post(REVOKE, body, X_API_Key=KEY)).status == 200


async def test_a_time_long_ago_is_no_mistake(gateway: Gateway) -> None:
    body = json.dumps({"user": "42", "issued_before": "0001-01-01T00:00:00+14:00"})

    assert (await gateway.post(REVOKE, body, X_API_Key=KEY)).status == 200


async def test_an_answer_that_is_not_whole_says_so(gateway: Gateway) -> None:
    gateway.revoker.cover = Cover(("b",), complete=False)
    answer = await gateway.post(REVOKE, '{"jti": "j"}', X_API_Key=KEY)

    partial = {"disconnected": 0, "complete": False, "missing_replicas": ["b"]}
    assert (answer.status, answer.json) == (200, partial)


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ("{", 400, []),
        ("[]", 422, ["body"]),
        ("{}", 422, ["user"]),
        ('{"issued_before": "2026-01-02T03:04:05Z"}', 422, ["user"]),
        ('{"user": "42", "jti": "j"}', 422, ["jti"]),
        ('{"user": null}', 422, ["user"]),
        ('{"user": 42}', 422, ["user"]),
        ('{"user": ""}', 422, ["user"]),
        ('{"jti": ""}', 422, ["jti"]),
        (json.dumps({"user": "u" * 256}), 422, ["user"]),
        (json.dumps({"user": "ü" * 128}), 422, ["user"]),
        (json.dumps({"jti": "ü" * 128}), 422, ["jti"]),
        ('{"user": "\\ud800"}', 400, []),
        ('{"user": "42", "users": ["43"]}', 422, ["users"]),
        ('{"user": "42", "issued_before": null}', 422, ["issued_before"]),
        ('{"user": "42", "issued_before": 1767323045}', 422, ["issued_before"]),
        ('{"user": "42", "issued_before": "yesterday"}', 422, ["issued_before"]),
        ('{"user": "42", "issued_before": "2026-01-02"}', 422, ["issued_before"]),
        # without an offset nobody knows when it is
        ('{"user": "42", "issued_before": "2026-01-02T03:04:05"}', 422, ["issued_before"]),
        ('{"user": "42", "issued_before": "2026-02-30T03:04:05Z"}', 422, ["issued_before"]),
        ('{"user": "42", "issued_before": "9999-12-31T23:59:59-14:00"}', 422, ["issued_before"]),
        ('{"user": "42", "issued_before": "2999-01-02T03:04:05Z"}', 422, ["issued_before"]),
    ],
)
async def test_a_bad_request_revokes_nothing(
    gateway: Gateway, body: str, status: int, fields: list[str]
) -> None:
    answer = await gateway.post(REVOKE, body, X_API_Key=KEY)

    assert (answer.status, answer.fields) == (status, fields)
    assert gateway.revoker.revoked == []


async def test_without_the_bus_the_answer_says_what_is_certain(gateway: Gateway) -> None:
    gateway.revoker.failure = BusUnavailable("down")
    answer = await gateway.post(REVOKE, '{"user": "42"}', X_API_Key=KEY)

    assert (answer.status, answer.slug) == (503, "bus-unavailable")
    assert "This replica refuses the tokens already" in answer.json["detail"]
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("key", ["publish-key", "read-key"])
async def test_it_takes_a_key_that_may_manage(gateway: Gateway, key: str) -> None:
    assert (await gateway.post(REVOKE, '{"user": "42"}', X_API_Key=key)).status == 403
    assert (await gateway.post(REVOKE, '{"user": "42"}', X_API_Key="none")).status == 401
    assert gateway.revoker.revoked == []
