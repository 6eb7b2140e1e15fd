"""The keys of an identity provider: when they are fetched, kept and given up."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import jwt
import pytest
import structlog

from gateway.auth.jwks import (
    KEEP_SECONDS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    UNKNOWN_KEY_SECONDS,
    FetchedKeys,
)
from gateway.auth.jws import Jws, parse
from gateway.errors import FetchError, TokenError
from tests.support.clock import Clock
from tests.support.keys import ALGORITHMS, ed, private_key, public_jwk

URL = "https://login.example/keys"


def token(kid: str | None, algorithm: str = "EdDSA", name: str | None = None) -> Jws:
    """A token that names a key and is signed by it."""
    headers = None if kid is None else {"kid": kid}
    return parse(jwt.encode({}, private_key(algorithm, name or kid or ""), algorithm, headers))


class Provider:
    """An identity provider with an Ed25519 key for each id.

    Attributes:
        kids: Ids of its keys.
        fetches: How often it was asked.
        results: What was counted.
        problem: Raised instead of an answer.
        answer: Given instead of the keys.
        gate: While it is not set, answers are not given.
    """

    def __init__(self, *kids: str) -> None:
        self.kids = kids
        self.fetches = 0
        self.results: list[bool] = []
        self.problem: Exception | None = None
        self.answer: bytes | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, url: str) -> bytes:
        """The key set."""
        assert url == URL
        self.fetches += 1
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        if self.answer is not None:
            return self.answer
        return json.dumps({"keys": [public_jwk(ed(kid), kid) for kid in self.kids]}).encode()


class World:
    """A provider and the keys fetched from it, at a time the test moves."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.provider = Provider("a")
        self.keys = FetchedKeys(
            URL,
            self.provider.fetch,
            counted=self.provider.results.append,
            clock=lambda: self.clock.now,
        )
        self.tasks: list[asyncio.Task[Any]] = []

    async def start(self) -> None:
        """Begin to keep the keys fresh."""
        self.tasks.append(asyncio.create_task(self.keys.run()))
        await self.clock.run()

    async def passes(self, seconds: float) -> None:
        """Let time pass until what follows from it is done, and the next wait has begun."""
        await self.clock.run(seconds)
        await self.clock.run()

    def asks(self, jws: Jws) -> asyncio.Task[Any]:
        """Begin to look for the keys of a token."""

        async def find(found: Awaitable[Any]) -> list[str | None]:
            return [key.key_id for key in await found]

        self.tasks.append(asyncio.create_task(find(self.keys.find(jws))))
        return self.tasks[-1]

    async def find(self, jws: Jws) -> Any:
        """Ids of the keys of a token, or why it is refused."""
        try:
            return await self.asks(jws)
        except TokenError as problem:
            return problem.reason


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """A provider that has the key ``a``; nothing is fetched yet."""
    world = World()
    yield world
    for task in world.tasks:
        task.cancel()
    await asyncio.gather(*world.tasks, return_exceptions=True)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_fetched_key_verifies_what_it_signed(world: World, algorithm: str) -> None:
    good, evil = private_key(algorithm, "good"), private_key(algorithm, "evil")
    world.provider.answer = json.dumps({"keys": [public_jwk(good, "k")]}).encode()

    (key,) = await world.keys.find(token("k", algorithm, "good"))

    assert (key.algorithm, key.key_id) == (algorithm, "k")
    assert key.verifies(token("k", algorithm, "good"))
    assert not key.verifies(token("k", algorithm, "evil"))
    assert good is not evil


async def test_the_keys_are_there_before_the_first_token(world: World) -> None:
    await world.start()

    assert await world.find(token("a")) == ["a"]
    assert world.provider.fetches == 1


async def test_known_keys_cost_no_fetch(world: World) -> None:
    await world.start()

    for _ in range(100):
        assert await world.find(token("a")) == ["a"]
        await world.passes(1)

    assert world.provider.fetches == 1


async def test_the_keys_are_fetched_again_over_and_over(world: World) -> None:
    await world.start()
    world.provider.kids = ("b",)
    await world.passes(REFRESH_SECONDS - 1)
    assert world.provider.fetches == 1

    await world.passes(1)

    assert world.provider.fetches == 2
    assert await world.find(token("b")) == ["b"]
    assert world.provider.fetches == 2
    # a key that the provider took away is good no longer
    assert await world.find(token("a")) == []


async def test_a_new_key_is_fetched_when_its_first_token_comes(world: World) -> None:
    await world.start()
    world.provider.kids = ("a", "b")

    assert await world.find(token("b")) == ["b"]
    assert await world.find(token("a")) == ["a"]
    assert world.provider.fetches == 2


async def test_tokens_that_come_together_wait_for_one_fetch(world: World) -> None:
    await world.start()
    world.provider.kids = ("a", "b")
    world.provider.gate.clear()

    waiting = [world.asks(token("b")) for _ in range(50)]
    await world.clock.run()
    assert not any(task.done() for task in waiting)
    assert await world.find(token("a")) == ["a"]  # who needs no fetch does not wait
    world.provider.gate.set()

    assert await asyncio.gather(*waiting) == [["b"]] * 50
    assert world.provider.fetches == 2


async def test_who_goes_away_leaves_the_others_waiting(world: World) -> None:
    await world.start()
    world.provider.kids = ("b",)
    world.provider.gate.clear()
    first, second = world.asks(token("b")), world.asks(token("b"))
    await world.clock.run()

    first.cancel()
    await world.clock.run()
    world.provider.gate.set()

    assert await second == ["b"]
    assert world.provider.fetches == 2


async def test_made_up_keys_are_no_hammer(world: World) -> None:
    await world.start()

    for number in range(1000):
        assert await world.find(token(f"made-up-{number}", name="evil")) == []
    assert world.provider.fetches == 2

    await world.passes(UNKNOWN_KEY_SECONDS - 1)
    assert await world.find(token("made-up", name="evil")) == []
    assert world.provider.fetches == 2
    await world.passes(1)
    assert await world.find(token("made-up", name="evil")) == []
    assert world.provider.fetches == 3


async def test_a_token_without_a_kid_is_tried_with_all_keys(world: World) -> None:
    world.provider.kids = ("a", "b", "c")

    assert await world.find(token(None, name="b")) == ["a", "b", "c"]
    assert await world.find(token(None, "ES256")) == []
    assert world.provider.fetches == 1


async def test_a_key_without_a_kid_is_tried_with_all_tokens(world: World) -> None:
    keys = [public_jwk(ed("x")), public_jwk(ed("a"), "a")]
    world.provider.answer = json.dumps({"keys": keys}).encode()

    assert await world.find(token("a")) == [None, "a"]
    assert await world.find(token("b")) == [None]


async def test_one_kid_may_have_keys_of_several_types(world: World) -> None:
    keys = [public_jwk(private_key(a, "k"), "k") for a in ALGORITHMS]
    world.provider.answer = json.dumps({"keys": keys}).encode()

    for algorithm in ALGORITHMS:
        (key,) = await world.keys.find(token("k", algorithm))
        assert key.algorithm == algorithm


async def test_a_known_key_of_another_algorithm_is_no_reason_to_fetch(world: World) -> None:
    await world.start()

    assert await world.find(token("a", "ES256")) == "token_algorithm"
    assert world.provider.fetches == 1


async def test_without_any_keys_the_reason_is_the_provider(world: World) -> None:
    world.provider.problem = FetchError("away")
    await world.start()

    assert await world.find(token("a")) == "keys_unavailable"
    assert await world.find(token(None)) == "keys_unavailable"
    assert world.provider.fetches == 2  # one by itself, one for the tokens
    assert world.provider.results == [False, False]


async def test_a_provider_that_comes_back_is_found_soon(world: World) -> None:
    world.provider.problem = FetchError("away")
    await world.start()
    world.provider.problem = None

    await world.passes(RETRY_SECONDS)

    assert await world.find(token("a")) == ["a"]
    assert world.provider.fetches == 2


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        (FetchError("no answer within 5 seconds"), None),
        (RuntimeError("a mistake of ours"), None),
        (None, b"<html>"),
        (None, b""),
        (None, b'{"error": "try later"}'),
    ],
)
async def test_a_fetch_that_fails_leaves_the_keys(
    world: World, problem: Exception | None, answer: bytes | None
) -> None:
    await world.start()
    world.provider.problem, world.provider.answer = problem, answer

    await world.passes(REFRESH_SECONDS)

    assert await world.find(token("a")) == ["a"]
    assert await world.find(token("b")) == []
    assert world.provider.results == [True, False, False]
    world.provider.problem = world.provider.answer = None
    world.provider.kids = ("b",)
    await world.passes(RETRY_SECONDS)
    assert await world.find(token("b")) == ["b"]


async def test_keys_are_kept_for_long_and_not_for_ever(world: World) -> None:
    await world.start()
    world.provider.problem = FetchError("away")

    await world.passes(KEEP_SECONDS)
    assert await world.find(token("a")) == ["a"]
    await world.passes(RETRY_SECONDS)

    assert await world.find(token("a")) == "keys_unavailable"


async def test_a_provider_that_has_no_keys_any_more_is_believed(world: World) -> None:
    await world.start()
    world.provider.kids = ()

    await world.passes(REFRESH_SECONDS)

    assert await world.find(token("a")) == []
    assert world.provider.results == [True, True, True]


async def test_changes_are_logged_and_nothing_else(world: World) -> None:
    def heard() -> list[tuple[str, str]]:
        events = [(entry["log_level"], entry["event"]) for entry in log]
        log.clear()
        return events

    with structlog.testing.capture_logs() as log:
        await world.start()
        assert log == [{"event": "keys changed", "keys": 1, "ignored": 0, "log_level": "info"}]
        log.clear()
        await world.passes(REFRESH_SECONDS)
        assert heard() == []
        world.provider.kids = ("b", "a")
        await world.passes(REFRESH_SECONDS)
        assert heard() == [("info", "keys changed")]
        world.provider.kids = ("a", "b")  # the order means nothing
        await world.passes(REFRESH_SECONDS)
        assert heard() == []
        world.provider.problem = FetchError("away")
        await world.passes(REFRESH_SECONDS)
        await world.passes(RETRY_SECONDS)
        assert heard() == [("warning", "keys cannot be fetched")]
        await world.passes(KEEP_SECONDS)
        await world.passes(RETRY_SECONDS)
        assert heard() == [("error", "keys are too old and not used any more")]
        world.provider.problem = None
        await world.passes(RETRY_SECONDS)
        assert heard() == [("info", "keys changed")]


async def test_the_log_knows_no_key(world: World) -> None:
    world.provider.kids = ("secret-kid",)
    with structlog.testing.capture_logs() as log:
        await world.start()
        await world.find(token("made-up-kid", name="evil"))
        world.provider.problem = FetchError("away")
        await world.passes(REFRESH_SECONDS)

    text = str(log)
    assert len(log) == 2
    assert not any(
        word in text for word in ("secret-kid", "made-up", URL, public_jwk(ed("a"))["x"])
    )


async def test_a_fetch_under_way_ends_with_its_owner(world: World) -> None:
    world.provider.gate.clear()
    await world.start()
    waiting = world.asks(token("a"))
    await world.clock.run()

    world.tasks[0].cancel()
    await world.clock.run()

    with pytest.raises(TokenError, match="keys_unavailable"):
        await waiting
    assert [task for task in asyncio.all_tasks() if "SingleFlight" in repr(task)] == []
