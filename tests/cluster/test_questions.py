"""What a question about a user costs four replicas, as their nats-server counts it."""

import json
import urllib.request
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from tests.cluster.conftest import StartCluster
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.ports import free_port
from tests.support.tokens import token
from tests.support.waiting import eventually

CONFIG: dict[str, Any] = {
    "channels": [{"pattern": "room:*", "presence": True}],
    "sessions": {"replica_down_after_seconds": 3},
}
NOWHERE = 3
ON_TWO = 8
WHOLE = {"complete": True, "missing_replicas": []}


class Counts:
    """Messages that came to nats-server and went from it, by the number of the connection."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/connz?sort=cid"
        self.now()

    def now(self) -> list[int]:
        """In the order in which the replicas came."""
        with urllib.request.urlopen(self._url, timeout=20) as response:  # noqa: S310 -- always http
            found = json.load(response)["connections"]
        return [each["in_msgs"] + each["out_msgs"] for each in found]

    async def of(self, question: Callable[[], Awaitable[object]]) -> list[int]:
        """What each connection had to do with a question, or with anything else meanwhile."""
        before = self.now()
        await question()
        return [after - each for after, each in zip(self.now(), before, strict=True)]


async def test_a_question_about_a_user_is_for_those_who_have_her(
    start_cluster: StartCluster,
) -> None:
    port = free_port()
    cluster = start_cluster(4, CONFIG, f'http: "127.0.0.1:{port}"', jetstream=False)
    a, b, _, d = cluster.replicas
    counts = Counts(port)
    clients = [await PhoenixClient.connect(each.socket_url, token("ann")) for each in (a, b)]
    for client in clients:
        await client.enter("room:1")
    async with Backend(a) as on_a, Backend(d) as on_d:

        async def costs(most: int, strangers: set[int], question: Callable[[], Any]) -> None:
            """Beats may come in between, so not each try has to show it; others must be rare enough."""

            async def cheap() -> bool:
                cost = await counts.of(question)
                return sum(cost) <= most and not any(cost[each] for each in strangers)

            await eventually(cheap)

        for path in (
            "/v1/users/nobody/sessions",
            "/v1/topics/room:2",
            "/v1/topics/room:2/presence",
        ):
            await costs(NOWHERE, {0, 1, 2}, partial(on_d.get, path))
        await costs(NOWHERE, {0, 1, 2}, partial(on_d.delete, "/v1/users/nobody/sessions"))
        two = {"users": ["nobody", "nobody else"]}
        await costs(2 * NOWHERE, {0, 1, 2}, partial(on_d.post, "/v1/users/status", two))

        for backend, strangers in ((on_d, {2}), (on_a, {2, 3})):
            for path in ("/v1/users/ann", "/v1/users/ann/sessions", "/v1/topics/room:1/presence"):
                await costs(ON_TWO, strangers, partial(backend.get, path))
                assert (await backend.get(path))[1].items() >= WHOLE.items()
            assert len((await backend.get("/v1/users/ann/sessions"))[1]["items"]) == 2
    for client in clients:
        await client.close()
