"""The drain by request of an operator."""

import pytest

from tests.unit.api.fakes import Gateway

SERVING = {"state": "serving", "connections": 2, "ending": False}
DRAINING = SERVING | {"state": "draining"}


async def test_it_is_started_watched_and_aborted_any_number_of_times(gateway: Gateway) -> None:
    for method, expected in (
        ("GET", SERVING),
        ("DELETE", SERVING),
        ("POST", DRAINING),
        ("POST", DRAINING),
        ("GET", DRAINING),
        ("DELETE", SERVING),
        ("DELETE", SERVING),
    ):
        answer = await gateway.ask(method, "/v1/drain")
        assert (answer.status, answer.json) == (200, expected)


async def test_a_replica_that_ends_goes_on_to_end(gateway: Gateway) -> None:
    gateway.drain.start()
    gateway.drain.ending = True
    answer = await gateway.ask("DELETE", "/v1/drain")

    assert answer.status == 409
    assert answer.json["type"] == "urn:gateway:problem:ending"
    assert (await gateway.ask("POST", "/v1/drain")).json == DRAINING | {"ending": True}


@pytest.mark.parametrize(
    ("method", "key", "status"),
    [
        ("POST", "manage-key", 200),
        ("POST", "read-key", 403),
        ("DELETE", "manage-key", 200),
        ("DELETE", "read-key", 403),
        ("GET", "read-key", 200),
        ("GET", "publish-key", 403),
        ("POST", "unknown", 401),
    ],
)
async def test_it_takes_a_key_that_may(
    gateway: Gateway, method: str, key: str, status: int
) -> None:
    assert (await gateway.ask(method, "/v1/drain", key)).status == status
    assert gateway.drain.draining == (method == "POST" and status == 200)
