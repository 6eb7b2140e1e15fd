"""The owner of the replica's tasks: which end of one is a death, and what becomes of errors."""

import ast
import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.app.supervisor import EVENT_LOOP, PATIENCE_SECONDS, Supervisor
from gateway.log import QUIET_SECONDS, background_error
from tests.support.clock import Clock

ROOT = Path(__file__).parents[3] / "gateway"

TASKS = {
    "_keep": "handed to the supervisor by the start() of the bus and of the history",
    "_watch": "one connection, which is given up when this ends, however it does",
    "_widen_all": "ends when there are enough copies; survives all errors",
    "_deliver": "one event; its death is that of the outbox, whose TaskGroup it is in",
    "drain": "the last second of a connection",
    "wait": "the last second of a connection",
    "sockets": "the last seconds of a replica, awaited",
    "_carry_out": "awaited by whoever wants the resource",
    "_run": "the callbacks of one socket",
    "_fetch": "one reading; the event loop reports its death",
    "_answer": "one answer to another replica; the event loop reports its death",
    "_serve": "one handshake",
    "_tell": "one thing for other replicas to know; the event loop reports its death",
    "_close_sockets": "one closing of sockets; the event loop reports its death",
    "_wait_for_bus": "one join",
    "_refresh": "one token",
    "_replay": "one replay",
    "work": "in the TaskGroup of the pool of workers, which ends with it",
    "_renewals": "as above",
    "_watch_state": "as above",
    "keep": "as above",
    "_read": "the words of one nats-server; the event loop reports its death",
}
"""Coroutines that become tasks elsewhere than in the supervisor, and who hears of their end."""


class Replica:
    """Counts errors and deaths."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.errors: list[str] = []
        self.deaths = 0
        self.supervisor = Supervisor(self.errors.append, self._died)

    def _died(self) -> None:
        self.deaths += 1


class Step:
    """Waits for a second, then succeeds or raises."""

    def __init__(self) -> None:
        self.calls = 0
        self.succeeds_every = 1

    async def __call__(self) -> None:
        await asyncio.sleep(1)
        self.calls += 1
        if not self.succeeds_every or self.calls % self.succeeds_every:
            raise RuntimeError


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    replica = Replica()
    yield replica
    await replica.supervisor.stop()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as lines:
        yield lines


async def fail() -> None:
    """A task that ends with an error."""
    await asyncio.sleep(0)
    raise RuntimeError


async def for_ever() -> None:
    """A task that does not end."""
    await asyncio.Event().wait()


async def test_a_task_that_raises_is_logged_and_counted_and_ends_the_replica(
    replica: Replica, logs: list[Any]
) -> None:
    assert replica.supervisor.doubt() is None
    replica.supervisor.start("outbox", fail())
    await replica.clock.run()

    assert (replica.deaths, replica.errors) == (1, ["outbox"])
    assert replica.supervisor.doubt() == "task_died"
    (line,) = logs
    assert (line["event"], line["task"], line["log_level"]) == ("task died", "outbox", "critical")
    assert line["exc_info"].__traceback__ is not None


async def test_a_task_that_somebody_else_cancels_has_died(
    replica: Replica, logs: list[Any]
) -> None:
    replica.supervisor.start("keys", for_ever()).cancel()
    await replica.clock.run()

    assert replica.deaths == 1
    assert isinstance(logs[0]["exc_info"], asyncio.CancelledError)


async def test_a_task_that_is_done_has_not_died(replica: Replica) -> None:
    task = replica.supervisor.start("join", asyncio.sleep(0))
    await replica.clock.run()

    assert task.done()
    assert replica.deaths == 0


async def test_what_a_part_has_started_is_watched_until_all_is_stopped(replica: Replica) -> None:
    replica.supervisor.watch(None)
    replica.supervisor.watch(asyncio.create_task(fail(), name="bus"))
    await replica.clock.run()
    assert (replica.deaths, replica.errors) == (1, ["bus"])

    theirs = asyncio.create_task(for_ever())
    replica.supervisor.watch(theirs)
    await replica.supervisor.stop()
    assert not theirs.done()
    theirs.cancel()
    await replica.clock.run()
    assert replica.deaths == 1


async def test_who_is_stopped_has_not_died_and_the_others_go_on(replica: Replica) -> None:
    facts = replica.supervisor.start("facts", for_ever())
    others = replica.supervisor.start("tracker", for_ever())
    await replica.supervisor.stop("facts")

    assert facts.cancelled()
    assert not others.done()
    await replica.supervisor.stop()
    assert others.cancelled()
    assert replica.deaths == 0
    others.cancel()


async def test_a_task_that_does_not_end_cannot_hold_up_the_others(replica: Replica) -> None:
    async def stubborn() -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    over = asyncio.Event()
    task = replica.supervisor.start("tracker", stubborn())
    await replica.clock.run()
    stopping = asyncio.create_task(replica.supervisor.stop())
    await replica.clock.run()
    await replica.clock.run(10)

    assert stopping.done()
    assert not task.done()
    over.set()
    await task


async def test_a_step_survives_errors_as_long_as_it_succeeds_now_and_then(
    replica: Replica, logs: list[Any]
) -> None:
    step = Step()
    step.succeeds_every = 3
    replica.supervisor.repeat("last_seen", step)
    for _ in range(60):
        await replica.clock.run(1)

    assert replica.deaths == 0
    assert set(replica.errors) == {"last_seen"}
    assert step.calls > len(replica.errors) >= 20
    # not a line for each
    assert len(logs) <= 60 / QUIET_SECONDS + 1
    assert logs[0]["event"] == "background error"
    assert isinstance(logs[0]["exc_info"], RuntimeError)


async def test_a_step_that_never_succeeds_is_a_death(replica: Replica) -> None:
    step = Step()
    replica.supervisor.repeat("tracker", step)
    await replica.clock.run()
    await replica.clock.run(1)
    step.succeeds_every = 0
    began = replica.clock.now
    while not replica.deaths:
        await replica.clock.run(0.25)

    assert PATIENCE_SECONDS < replica.clock.now - began < PATIENCE_SECONDS + 4
    assert replica.supervisor.doubt() == "task_died"


async def test_a_step_that_raises_before_it_waits_does_not_take_the_event_loop(
    replica: Replica,
) -> None:
    calls = 0

    async def step() -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError

    replica.supervisor.repeat("tracker", step)
    await replica.clock.run()
    await replica.clock.run(0.1)

    assert calls == 1


async def test_errors_nobody_waits_for_are_counted_and_logged_and_end_nothing(
    replica: Replica, logs: list[Any]
) -> None:
    def broken(_: str) -> None:
        raise RuntimeError

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(replica.supervisor.unhandled)
    loop.call_soon(broken, "secret")
    await replica.clock.run()
    background_error("follower", RuntimeError())
    asyncio.create_task(fail())  # noqa: RUF006 -- nobody keeps it
    await replica.clock.run()
    loop.call_exception_handler({"message": "something is odd"})

    assert replica.errors == [EVENT_LOOP, "follower", EVENT_LOOP, EVENT_LOOP]
    assert replica.deaths == 0
    # the later ones of a kind are held back
    assert [line["task"] for line in logs] == [EVENT_LOOP, "follower"]
    assert "secret" not in str(logs)
    assert all(isinstance(line["exc_info"], RuntimeError) for line in logs)


async def test_what_has_no_exception_is_logged_in_its_own_words(
    replica: Replica, logs: list[Any]
) -> None:
    context = {"message": "Task was destroyed but it is pending!"}
    replica.supervisor.unhandled(asyncio.get_running_loop(), context)

    assert logs[0]["problem"] == context["message"]


def started() -> Iterator[tuple[str, str]]:
    """Files that start tasks themselves, and the names of the coroutines."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in {
                "create_task",
                "ensure_future",
            }:
                work = node.args[0]
                function = work.func if isinstance(work, ast.Call) else work
                yield str(path.relative_to(ROOT)), ast.unparse(function).rpartition(".")[2]


def test_whoever_starts_a_task_has_said_who_hears_of_its_end() -> None:
    found = {name: file for file, name in started() if file != "app/supervisor.py"}

    assert set(found) - set(TASKS) == set(), f"owned by nobody: {found}"
    assert set(TASKS) - set(found) == set(), "there is no such task any more"
