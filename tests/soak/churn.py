"""Clients come and go for an hour or so, and what replicas hold must not grow with them.

Every client is a user of its own and joins topics nobody joined before, beside some that others share. Now
and then connections are reset, the way to the bus breaks and nats-server is started anew; replicas live on.
"""

import asyncio
import contextlib
import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psutil
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tests.faults.lab import Lab
from tests.faults.timeline import Timeline
from tests.soak.run import Report
from tests.support.api import Backend
from tests.support.client import PhoenixClient
from tests.support.gateway import GatewayProcess
from tests.support.longpoll import PollClient
from tests.support.tokens import token
from tests.support.waiting import eventually

ARRIVALS = 12.0
"""Clients a second: together with them the replicas take less than a core."""

LIFE_SECONDS = 20.0
"""The longest that one stays."""

SHARED = 10
"""Topics that are joined by many."""

POLLS_EVERY = 10
VERSION_1_EVERY = 7
REVOKED_EVERY = 500
"""One user in so many has her tokens revoked, which is remembered for as long as they would be good."""

SETTLED_AFTER_SECONDS = 600.0
"""From then on memory must not grow."""

GROWTH = 0.05
SAMPLES = 20
SAMPLE_SECONDS = 60.0
QUIET_SECONDS = 240.0
"""For what outlives a client: leases, moved users, keys of the tracker."""

SPARE = 8
"""So many objects of a type, tasks or descriptors more than at the start are no leak."""

NO_LEAK = ("gateway.wheel.Timed",)
"""Types whose number follows time and not clients: heads of the timer wheel's slots, one a second."""

FAULT_SECONDS = (20.0, 90.0)

ENDS = (
    ConnectionClosed,
    InvalidHandshake,
    OSError,
    TimeoutError,
    AssertionError,
    EOFError,
    aiohttp.ClientError,
)
GAUGES = ("connections", "sessions", "topics", "upstream_in_flight", "outbound_buffered_bytes")


class Sample(NamedTuple):
    """What one replica holds.

    Attributes:
        at: Seconds since the beginning.
        objects: Of its own types, counted.
    """

    at: float
    resident_bytes: int
    descriptors: int
    tasks: int
    objects: Counter[str]


class Churn:
    """A lab with its clients.

    Attributes:
        lives: How many clients have come, by what they were.
        samples: Of each replica.
    """

    def __init__(
        self, lab: Lab, directory: Path, chance: random.Random, show: Callable[[str], None]
    ) -> None:
        self.lives: Counter[str] = Counter()
        self.samples: list[list[Sample]] = [[] for _ in lab.replicas]
        self._lab = lab
        self._directory = directory
        self._chance = chance
        self._show = show
        self._timeline = Timeline()
        self._numbers = count(1)

    async def run(self, seconds: float) -> None:
        """From quiet to quiet; the first sample is before anybody came, the last when all are gone."""
        await self._sample(collect=True)
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for each in (self._arrive(over), self._publish(over), self._fail(over)):
                group.create_task(each)
            every = min(SAMPLE_SECONDS, seconds / SAMPLES)
            while self._timeline.now() < seconds:
                await asyncio.sleep(every)
                await self._sample()
            over.set()

    async def quiet(self, seconds: float) -> list[str]:
        """Wait until all that came with clients is gone, for so long at most; what is left."""
        end = self._timeline.now() + seconds
        while True:
            await self._sample(collect=True)
            left = self._left()
            if not left or self._timeline.now() > end:
                return left
            await asyncio.sleep(5)

    def _left(self) -> list[str]:
        left = []
        for number, (samples, replica) in enumerate(
            zip(self.samples, self._lab.replicas, strict=True)
        ):
            first, last = samples[0], samples[-1]
            held = {
                "descriptors": last.descriptors - first.descriptors,
                "tasks": last.tasks - first.tasks,
                **(last.objects - first.objects),
            }
            left += [
                f"replica {number}: {more} more {what} than at the start"
                for what, more in held.items()
                if more > SPARE and what not in NO_LEAK
            ]
            left += [
                f"replica {number}: {name} is {value}"
                for name in GAUGES
                if (value := replica.metric(name))
            ]
        return left

    async def _sample(self, *, collect: bool = False) -> None:
        for number, replica in enumerate(self._lab.replicas):
            process = psutil.Process(replica.pid)
            census = await self._census(replica, collect=collect)
            sample = Sample(
                self._timeline.now(),
                process.memory_info().rss,
                process.num_fds(),
                census["tasks"],
                Counter(census["objects"]),
            )
            self.samples[number].append(sample)
            self._show(
                f"{sample.at:6.0f} s  replica {number}  {sample.resident_bytes / 2**20:.1f} MiB"
                f"  {sample.descriptors} descriptors  {sample.tasks} tasks"
                f"  {sample.objects.total()} objects"
            )

    async def _census(self, replica: GatewayProcess, *, collect: bool) -> Any:
        file = self._directory / f"{replica.pid}.json"
        file.unlink(missing_ok=True)
        replica.signal(signal.SIGUSR2 if collect else signal.SIGUSR1)
        await eventually(file.exists, 30, "a census")
        return json.loads(file.read_text())

    async def _arrive(self, over: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                group.create_task(self._live(next(self._numbers)))
                await asyncio.sleep(self._chance.expovariate(ARRIVALS))

    async def _live(self, number: int) -> None:
        if number % POLLS_EVERY == 0:
            kind, life = "polls", self._poll(number)
        else:
            kind, life = "sockets", self._talk(number)
        try:
            await life
        except ENDS:
            kind += " cut short"
        self.lives[kind] += 1

    async def _talk(self, number: int) -> None:
        """A socket that joins, speaks, renews its token, and ends in order or not."""
        user, chance = f"u{number}", self._chance
        vsn = "1.0.0" if number % VERSION_1_EVERY == 0 else "2.0.0"
        client = await PhoenixClient.connect(self._lab.address, token(user), vsn=vsn)
        try:
            topics = [
                f"hall:{number}",
                f"hall:s{number % SHARED}",
                f"room:{number}",
                f"user:{user}",
            ]
            for topic in topics:
                await client.join(topic, {"resume": None} if chance.random() < 0.5 else {})
            for _ in range(chance.randrange(4)):
                await client.push(
                    chance.choice(topics[:3]), "say", {"x": "x" * chance.randrange(2000)}
                )
                await asyncio.sleep(chance.uniform(0, LIFE_SECONDS / 4))
            await client.ask(topics[0], "access_token", {"access_token": token(user)})
            await client.send("no message")
            if chance.random() < 0.5:
                await client.leave(topics[1])
            await self._administer(number, user)
            await client.heartbeat()
        finally:
            if chance.random() < 0.5:
                client.connection.transport.abort()
            await client.close()

    async def _administer(self, number: int, user: str) -> None:
        """Now and then the backend asks about a user, takes her off a topic or closes her sockets."""
        async with Backend(self._chance.choice(self._lab.replicas)) as backend:
            match number % 20:
                case 1:
                    await backend.get(f"/v1/users/{user}/sessions")
                case 2:
                    await backend.delete(f"/v1/users/{user}/sessions")
                case 3:
                    await backend.delete(f"/v1/topics/room:{number}/users/{user}")
                case 4:
                    await backend.get(f"/v1/topics/hall:{number}/presence")
                case _ if number % REVOKED_EVERY == 0:
                    await backend.post("/v1/tokens/revoke", {"user": user})

    async def _poll(self, number: int) -> None:
        """A client that polls, through whichever replica; it just goes away."""
        chance, replicas = self._chance, self._lab.replicas
        async with PollClient(chance.choice(replicas), token(f"u{number}")) as client:
            await client.join(f"hall:{number}", {"resume": None})
            for _ in range(chance.randrange(3)):
                replica = chance.choice(replicas)
                await client.push(f"hall:{number}", "say", {"x": 1}, replica)
                await client.poll(replica)

    async def _publish(self, over: asyncio.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(aiohttp.ClientError, ValueError, OSError):
                async with Backend(self._chance.choice(self._lab.replicas)) as backend:
                    for number in range(SHARED):
                        await backend.publish(f"hall:s{number}", "n", {"x": "x" * 200})
                        await backend.publish(f"hall:{self._chance.randrange(10**9)}", "n", {})
            await asyncio.sleep(1)

    async def _fail(self, over: asyncio.Event) -> None:
        """Faults that replicas live through."""
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), self._chance.uniform(*FAULT_SECONDS))
                return
            await self._chance.choice([self._reset, self._cut, self._restart])()

    async def _reset(self) -> None:
        self._lab.links.reset(self._lab.balancer, 0.5, self._chance)

    async def _cut(self) -> None:
        way = self._chance.choice(self._lab.ways)
        self._lab.links.cut(way)
        await asyncio.sleep(2)
        self._lab.links.heal(way)

    async def _restart(self) -> None:
        await asyncio.to_thread(self._lab.nats.stop)
        await asyncio.to_thread(self._lab.nats.start)


async def churn(seconds: float, seed: int, directory: Path, show: Callable[[str], None]) -> Report:
    """Run it; logs and stores are left in the directory."""
    command = ("-m", "tests.soak.census", str(directory))
    async with Lab(directory, command=command) as lab:
        made = Churn(lab, directory, random.Random(seed), show)
        await made.run(seconds)
        problems = await made.quiet(QUIET_SECONDS)
    settled = min(SETTLED_AFTER_SECONDS, seconds / 3)
    for number, samples in enumerate(made.samples):
        base = next(sample for sample in samples if sample.at >= settled).resident_bytes
        end = next(s for s in reversed(samples) if s.at <= seconds + SAMPLE_SECONDS).resident_bytes
        if end > base * (1 + GROWTH):
            problems.append(
                f"replica {number}: {base / 2**20:.1f} MiB after {settled:.0f} s,"
                f" {end / 2**20:.1f} at the end"
            )
    problems += lab.errors()
    return Report([f"clients: {dict(made.lives)}"], problems)
