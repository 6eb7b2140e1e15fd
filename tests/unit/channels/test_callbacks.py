"""The callbacks of one client: one at a time, in order, whatever becomes of each; and their end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog.testing

from gateway.errors import UpstreamUnavailable
from tests.unit.channels.scene import (
    ASKED,
    MOST_WAITING,
    MOST_WAITING_BYTES,
    ORDERS,
    Callback,
    Client,
    Scene,
    ok,
)


class Steps:
    """Callback that says when it begins and goes on when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.done: list[str] = []
        self._may_go: dict[str, asyncio.Event] = {}

    def work(self, name: str) -> Callback:
        """A piece of work."""
        self._may_go[name] = asyncio.Event()

        async def run() -> None:
            self.begun.append(name)
            await self._may_go[name].wait()
            self.done.append(name)

        return run

    def go_on(self, *names: str) -> None:
        """Let pieces of work end."""
        for name in names:
            self._may_go[name].set()


async def bug() -> None:
    """Callback with a bug."""
    raise RuntimeError("a bug")


@pytest.fixture
async def steps() -> AsyncIterator[Steps]:
    """Callback; what the test did not let end ends with it."""
    made = Steps()
    yield made
    made.go_on(*made._may_go)


@pytest.fixture
def client(scene: Scene) -> Client:
    """A client of user 42."""
    return scene.connect()


async def test_one_is_done_at_a_time_in_the_order_they_came(
    scene: Scene, client: Client, steps: Steps
) -> None:
    for name in "abc":
        assert scene.queue(client, steps.work(name))
    await scene.settled()
    assert (steps.begun, scene.tasks) == (["a"], 1), "one task for all of a client's"
    steps.go_on("c", "b")
    await scene.settled()
    assert steps.begun == ["a"]
    steps.go_on("a")
    await scene.settled()

    assert steps.done == ["a", "b", "c"]
    assert scene.tasks == 0


async def test_what_comes_when_all_is_done_is_done_too(
    scene: Scene, client: Client, steps: Steps
) -> None:
    for name in "ab":
        scene.queue(client, steps.work(name))
        steps.go_on(name)
        await scene.settled()
        assert scene.tasks == 0

    assert steps.done == ["a", "b"]


async def test_two_clients_do_not_wait_for_each_other(
    scene: Scene, client: Client, steps: Steps
) -> None:
    scene.queue(client, steps.work("a"))
    scene.queue(scene.connect(), steps.work("b"))
    await scene.settled()

    assert steps.begun == ["a", "b"]


async def test_so_many_may_wait_the_one_under_way_included(
    scene: Scene, client: Client, steps: Steps
) -> None:
    taken = [scene.queue(client, steps.work(str(n))) for n in range(MOST_WAITING + 1)]

    assert taken == [True] * MOST_WAITING + [False]


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [
        ((MOST_WAITING_BYTES, 0), [True, True]),
        ((MOST_WAITING_BYTES, 1), [True, False]),
        ((MOST_WAITING_BYTES + 1, 0), [True, False]),
        ((1, MOST_WAITING_BYTES, MOST_WAITING_BYTES - 1), [True, False, True]),
    ],
)
async def test_so_many_bytes_may_wait_unless_there_is_only_one(
    scene: Scene, client: Client, steps: Steps, sizes: tuple[int, ...], taken: list[bool]
) -> None:
    assert [scene.queue(client, steps.work(str(n)), size) for n, size in enumerate(sizes)] == taken


async def test_what_is_under_way_counts_among_what_is_kept(
    scene: Scene, client: Client, steps: Steps
) -> None:
    scene.queue(client, steps.work("a"), MOST_WAITING_BYTES)
    await scene.settled()
    assert not scene.queue(client, steps.work("b"), 1)
    steps.go_on("a")
    await scene.settled()

    assert scene.queue(client, steps.work("c"), MOST_WAITING_BYTES)


async def test_the_params_of_joins_count(scene: Scene, client: Client) -> None:
    half = {"x": "x" * (MOST_WAITING_BYTES // 2)}
    await client.join(ASKED, "1", half)
    await client.join("asked:2", "2", half)

    assert [frame[4]["response"] for frame in client.take()] == [{"reason": "rate limited"}]
    scene.backend.last.refuse({})
    await scene.settled()


async def test_a_crash_closes_the_client_and_the_rest_is_done(
    scene: Scene, client: Client, steps: Steps
) -> None:
    scene.queue(client, steps.work("a"))
    scene.queue(client, bug)
    scene.queue(client, steps.work("b"))
    with structlog.testing.capture_logs() as logs:
        steps.go_on("a", "b")
        await scene.settled()

    assert client.take() == [(1011, "")]
    assert [entry["event"] for entry in logs] == ["callback crashed"]
    assert (steps.done, scene.tasks) == (["a", "b"], 0)


async def test_a_client_that_crashed_is_alone_in_it(scene: Scene, client: Client) -> None:
    other = scene.connect("43")
    scene.queue(client, bug)
    await scene.settled()
    await other.heartbeat("1")

    assert other.take() == [ok(None, "1", "phoenix")]
    assert other.close_code is None


async def test_a_crash_leaves_pushes_that_wait_to_the_backend(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "first")
    scene.queue(client, bug)
    await client.push(ORDERS, "second")
    for _ in range(2):
        scene.backend.last.take()
        await scene.settled()

    assert [event for _, event in scene.backend.calls] == ["first", "second"]
    assert client.close_code == 1011


async def test_the_next_is_done_when_the_backend_failed(scene: Scene) -> None:
    client = await scene.joined(ORDERS)
    await client.push(ORDERS, "first")
    await client.push(ORDERS, "second", ref="3")
    scene.backend.last.fail(UpstreamUnavailable("busy"))
    await scene.settled()
    scene.backend.last.take()
    await scene.settled()

    assert [frame[4]["status"] for frame in client.take()] == ["error", "ok"]


# dropping


async def test_dropping_tells_how_many_and_leaves_the_one_under_way(
    scene: Scene, client: Client, steps: Steps
) -> None:
    for name, topic in zip("abcde", (ORDERS, ORDERS, "orders:2", None, ORDERS), strict=True):
        scene.queue(client, steps.work(name), 1, topic)
    await scene.settled()
    assert scene.drop_waiting("42", ORDERS) == 2
    assert scene.drop_waiting("42", ORDERS) == 0
    steps.go_on(*"abcde")
    await scene.settled()

    assert steps.done == ["a", "c", "d"], "what has no topic must be done"


async def test_dropping_is_for_all_sockets_of_one_user(
    scene: Scene, client: Client, steps: Steps
) -> None:
    second, other, stranger = scene.connect("42"), scene.connect("43"), scene.connect(None)
    for name, each in (("a", client), ("b", second), ("c", other), ("d", stranger)):
        scene.queue(each, steps.work(name), 1, ORDERS)
        scene.queue(each, steps.work(name * 2), 1, ORDERS)
    await second.go()
    assert scene.drop_waiting("42", ORDERS) == 2
    steps.go_on("a", "b", "c", "d", "cc", "dd")
    await scene.settled()

    assert sorted(steps.done) == ["a", "b", "c", "cc", "d", "dd"]


async def test_where_nothing_waits_nothing_is_dropped(scene: Scene, client: Client) -> None:
    await client.heartbeat("1")

    assert scene.drop_waiting("42", ORDERS) == 0


# the end of a replica


async def test_finishing_waits_for_what_is_under_way(
    scene: Scene, client: Client, steps: Steps
) -> None:
    scene.queue(client, steps.work("a"), 1, ORDERS)
    scene.queue(client, steps.work("b"), 1, ORDERS)
    finishing = await scene.finish_callbacks(3)
    await scene.pass_time(2)
    assert not finishing.done()
    steps.go_on("a", "b")
    await scene.settled()

    assert finishing.result() == 0
    assert steps.done == ["a", "b"]


async def test_finishing_takes_no_longer_than_it_may_and_counts_the_pushes_it_gives_up(
    scene: Scene, client: Client, steps: Steps
) -> None:
    """The one under way is given up as well, and what is no push counts for nothing."""
    other = scene.connect("43")
    scene.queue(client, steps.work("before"), 1, ORDERS)
    steps.go_on("before")
    await scene.settled()
    scene.queue(client, steps.work("a"), 1, ORDERS)
    scene.queue(client, steps.work("b"), 1, None)
    scene.queue(client, steps.work("c"), 1, "orders:2")
    scene.queue(other, steps.work("d"), 1, ORDERS)
    finishing = await scene.finish_callbacks(3)
    await scene.pass_time(2)
    assert not finishing.done()
    await scene.pass_time(1)

    assert finishing.result() == 3
    assert (steps.begun, steps.done) == (["before", "a", "d"], ["before"])
    assert scene.tasks == 0


async def test_finishing_where_nothing_is_under_way_is_done_at_once(scene: Scene) -> None:
    assert (await scene.finish_callbacks(3)).result() == 0
