"""A backend that publishes at an even rate to any replica, and repeats what was not taken."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Self

import aiohttp

from gateway.history.position import decode
from tests.faults.ledger import Ledger
from tests.support.gateway import API_KEY, GatewayProcess

ANSWER_SECONDS = 15.0
REPEAT_SECONDS = 0.2
LATE_SECONDS = 0.5
"""A message that was not taken within that was late."""

GIVE_UP_SECONDS = 100.0
"""Ids are remembered for two minutes; after that a repeat might be stored a second time."""

EPOCH = 2**48
"""More than any offset."""


class Publisher:
    """Publishes numbers, each with its own id.

    Args:
        clock: Seconds since the beginning.
        chance: Chooses topics and replicas.
        answer_seconds: For how long it waits for an answer.

    Attributes:
        refused: Answers 503, answers 504 and broken connections, counted.
        late_at: When a message was taken last that had not been at once.
        epochs: Of all positions, in order.
        problems: What broke the contract of ``POST /v1/publish``.
    """

    def __init__(
        self,
        replicas: list[GatewayProcess],
        topics: list[str],
        ledger: Ledger,
        clock: Callable[[], float],
        chance: random.Random,
        *,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._replicas = replicas
        self._topics = topics
        self._ledger = ledger
        self._clock = clock
        self._chance = chance
        self._numbers = 0
        self._run = f"{chance.getrandbits(64):x}"
        self._answer_seconds = answer_seconds
        self.epochs: list[str] = []
        self.late_at = 0.0
        self.refused = {"503": 0, "504": 0, "broken": 0}
        self.problems: list[str] = []

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {API_KEY}"},
            timeout=aiohttp.ClientTimeout(total=self._answer_seconds),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def pour(self, rate: float, until: asyncio.Event) -> None:
        """Publish at this rate, whatever becomes of it; returns when everything was taken."""
        started = time.monotonic()
        sent = 0
        async with asyncio.TaskGroup() as group:
            while not until.is_set():
                await asyncio.sleep(max(0.0, started + sent / rate - time.monotonic()))
                group.create_task(self.publish(self._chance.choice(self._topics)))
                sent += 1

    async def publish(self, topic: str) -> None:
        """Publish the next number on a topic, as often as it takes."""
        self._numbers += 1
        number = self._numbers
        body = {"topic": topic, "event": "n", "payload": {"n": number}}
        body |= {"id": f"{self._run}-{number}"}
        began = time.monotonic()
        certain = True  # whether it is certainly not stored yet
        while True:
            replica = self._chance.choice(self._replicas)
            try:
                async with self._session.post(
                    f"{replica.internal_url}/v1/publish", json=body
                ) as response:
                    status, answer = response.status, await response.json(content_type=None)
            except aiohttp.ClientConnectorError:
                status, answer = 0, None  # nobody there: it was never sent
            except (aiohttp.ClientError, TimeoutError):
                status, answer, certain = 0, None, False
            match status:
                case 202:
                    self._taken(topic, number, answer["results"][0], certain=certain)
                    if time.monotonic() - began > LATE_SECONDS:
                        self.late_at = self._clock()
                    return
                case 0:
                    self.refused["broken"] += 1
                case 503:
                    self.refused["503"] += 1
                case 504:
                    self.refused["504"] += 1
                    certain = False
                case _:
                    self.problems.append(f"message {number} on {topic} got {status}: {answer}")
                    return
            if time.monotonic() - began > GIVE_UP_SECONDS:
                self.problems.append(f"message {number} on {topic} was never taken")
                return
            await asyncio.sleep(REPEAT_SECONDS * self._chance.uniform(0.5, 1.5))

    def place(self, position: str) -> int:
        """Where a position stands, above all those of earlier epochs."""
        found = decode(position)
        if found.epoch not in self.epochs:
            self.epochs.append(found.epoch)
        return self.epochs.index(found.epoch) * EPOCH + found.offset

    def _taken(
        self, topic: str, number: int, result: dict[str, str | bool], *, certain: bool
    ) -> None:
        self._ledger.store(topic, number, self.place(str(result["position"])), self._clock())
        if result.get("duplicate") and certain:
            self.problems.append(
                f"message {number} on {topic} had been stored, although each answer was 503"
            )
