"""One fault after the other on a lab, under load, and what became of the clients and their messages."""

import asyncio
import functools
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from websockets.exceptions import ConnectionClosed

from tests.cluster.reader import Reader
from tests.faults.lab import Lab
from tests.faults.ledger import Ledger
from tests.faults.publisher import Publisher
from tests.faults.table import Fault
from tests.faults.timeline import Timeline
from tests.support.client import PhoenixClient
from tests.support.tokens import token
from tests.support.waiting import eventually

READERS = 9
RATE = 40.0
"""Messages a second."""

BEFORE_SECONDS = 1.0
CALM_SECONDS = 2.0
"""After so long without anything amiss all is right."""

SETTLED_SECONDS = 90.0
"""Far above the half minute in which a lost live copy is found."""

LATE_SECONDS = 0.5
"""A message that came later than that after it was taken was late."""

BEAT_SECONDS = 0.1
PATIENCE_SECONDS = 60.0
"""Longer than any replica is frozen: these clients do not give up by themselves."""

LOOK_SECONDS = 0.1

CLOCK = ("-m", "tests.faults.clock")


@dataclass
class Outcome:
    """What became of one fault.

    Attributes:
        lasted: Seconds from its beginning until all it took away was given back.
        right_after: Seconds from then until the last thing that was amiss; None if that never ended.
        taken: Messages that were taken with 202.
        refused: Answers 503, 504 and broken connections to publishes, all of them repeated.
        lost: Deliveries that never came, without the client having been told.
        repeated: Deliveries that came twice.
        disordered: Deliveries that came after a later one.
        told: Reasons with which clients were told that they missed something, counted.
        resumed: Joins with ``recovered: true``.
        kept: Of connections straight to each replica, how many lived through it.
        beat: The longest wait for a heartbeat's answer on the others of them, in seconds: where one replica
            is the victim, it is the first.
        problems: What broke a promise.
    """

    fault: Fault
    lasted: float = 0.0
    right_after: float | None = None
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    told: Counter[str] = field(default_factory=Counter)
    resumed: int = 0
    kept: int = 0
    beat: float = 0.0
    problems: list[str] = field(default_factory=list)


class _Beat:
    """A client straight on one replica, that joins nothing and sends heartbeats."""

    def __init__(self) -> None:
        self.alive = True
        self.worst = 0.0

    async def run(self, client: PhoenixClient) -> None:
        try:
            while True:
                began = time.monotonic()
                await client.send_frame(None, "b", "phoenix", "heartbeat", {})
                await client.reply("b", PATIENCE_SECONDS)
                client.inbox.clear()
                self.worst = max(self.worst, time.monotonic() - began)
                await asyncio.sleep(BEAT_SECONDS)
        except (AssertionError, ConnectionClosed, TimeoutError):
            self.alive = False


class Trial:
    """One fault on a lab: readers of one topic that come back, a publisher, and heartbeats.

    Args:
        number: Of the trial; its topic is its own.
    """

    def __init__(self, lab: Lab, fault: Fault, number: int) -> None:
        self._lab = lab
        self._fault = fault
        self._topic = f"room:{number}"
        self._timeline = Timeline()
        self._ledger = Ledger([[self._topic]] * READERS)
        self._late_at = 0.0
        self._readers = [
            Reader(f"u{client}", self._topic, functools.partial(self._got, client))
            for client in range(READERS)
        ]
        self._publisher = Publisher(
            lab.replicas,
            [self._topic],
            self._ledger,
            self._timeline.now,
            random.Random(number),
            answer_seconds=2.0,
        )

    async def run(self) -> Outcome:
        """Let it happen, and wait until all is right."""
        outcome = Outcome(self._fault)
        now, done = self._timeline.now, asyncio.Event()
        async with self._publisher as publisher, _beats(self._lab) as beats:
            try:
                await asyncio.gather(*(reader.go(self._lab.address) for reader in self._readers))
                pouring = asyncio.create_task(publisher.pour(RATE, done))
                await asyncio.sleep(BEFORE_SECONDS)
                began = now()
                await self._fault.make(self._lab)
                ended = now()
                outcome.lasted = ended - began
                settled = await self._settle(ended)
                done.set()
                await pouring
                # whatever were to come twice would come before this one
                await publisher.publish(self._topic)
                if settled is not None:
                    outcome.right_after = max(0.0, settled - ended)
                    with suppress(AssertionError):
                        await eventually(lambda: self._missing() == 0, SETTLED_SECONDS)
                outcome.kept = sum(beat.alive for beat in beats)
                outcome.beat = max((beat.worst for beat in beats[1:] if beat.alive), default=0.0)
            finally:
                done.set()
                await asyncio.gather(*(reader.stop() for reader in self._readers))
        self._judge(outcome)
        return outcome

    async def _settle(self, ended: float) -> float | None:
        """Wait until nothing has been amiss for a while; when the last thing was, or None."""
        now, amiss = self._timeline.now, ended
        while now() < ended + SETTLED_SECONDS:
            if not await self._right():
                amiss = now()
            amiss = max(amiss, self._late_at, self._publisher.late_at)
            if now() > amiss + CALM_SECONDS:
                return amiss
            await asyncio.sleep(LOOK_SECONDS)
        return None

    async def _right(self) -> bool:
        if not all(reader.joined for reader in self._readers) or self._overdue():
            return False
        statuses = await asyncio.gather(
            *(asyncio.to_thread(replica.get, "/readyz") for replica in self._lab.replicas)
        )
        return all(status == 200 for status, _ in statuses)

    def _got(self, client: int, number: int) -> None:
        self._ledger.get(client, self._topic, number)
        stored = self._ledger.stored[self._topic].get(number)
        if stored is not None and self._timeline.now() - stored.at > LATE_SECONDS:
            self._late_at = self._timeline.now()

    def _overdue(self) -> bool:
        """Whether anybody who has not been told otherwise still waits for something."""
        until = self._timeline.now() - LATE_SECONDS
        stored = self._ledger.stored[self._topic]
        due = {number for number, message in stored.items() if message.at < until}
        return any(
            self._unsaid(client, due - set(reader.numbers))
            for client, reader in enumerate(self._readers)
        )

    def _missing(self) -> int:
        wanted = set(self._ledger.stored[self._topic])
        return sum(
            len(self._unsaid(client, wanted - set(reader.numbers)))
            for client, reader in enumerate(self._readers)
        )

    def _unsaid(self, client: int, missing: set[int]) -> set[int]:
        """Of messages a client lacks, those it was not told of that it missed them."""
        told = [
            self._publisher.place(answer["position"])
            for answer in self._readers[client].answers
            if answer["recovered"] is False
        ]
        stored = self._ledger.stored[self._topic]
        return {n for n in missing if not told or stored[n].offset > max(told)}

    def _judge(self, outcome: Outcome) -> None:
        answers = [answer for reader in self._readers for answer in reader.answers]
        outcome.taken = self._ledger.messages
        outcome.refused = Counter({k: n for k, n in self._publisher.refused.items() if n})
        outcome.told = Counter(a["reason"] for a in answers if a["recovered"] is False)
        outcome.resumed = sum(answer["recovered"] is True for answer in answers)
        outcome.lost = self._missing()
        problems = list(self._publisher.problems)
        for finding in self._ledger.findings():
            if finding.kind == "repeated":
                outcome.repeated += len(finding.numbers)
            elif finding.kind == "disordered":
                outcome.disordered += len(finding.numbers)
            elif finding.kind == "strange":
                problems.append(f"client {finding.client} got {finding.numbers}, never taken")
        if unexpected := set(outcome.told) - self._fault.told:
            problems.append(f"clients were told {unexpected}")
        if outcome.lost or outcome.repeated or outcome.disordered:
            problems.append(
                f"lost {outcome.lost}, repeated {outcome.repeated}, disordered {outcome.disordered}"
            )
        if outcome.right_after is None:
            problems.append(f"not right after {SETTLED_SECONDS:g} s")
        outcome.problems = [f"{self._fault.name}: {problem}" for problem in problems]


@asynccontextmanager
async def _beats(lab: Lab) -> AsyncIterator[list[_Beat]]:
    clients = [
        await PhoenixClient.connect(replica.socket_url, token(f"beat{number}"))
        for number, replica in enumerate(lab.replicas)
    ]
    beats = [_Beat() for _ in clients]
    tasks = [
        asyncio.create_task(beat.run(client)) for beat, client in zip(beats, clients, strict=True)
    ]
    try:
        yield beats
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)


async def play(faults: Sequence[Fault], directory: Path) -> AsyncIterator[Outcome]:
    """Each fault, those of one kind of lab on the same one; a lab that is not right again is replaced."""
    numbers = count(1)
    for together in (False, True):
        waiting = [fault for fault in faults if fault.together is together]
        while waiting:
            async with Lab(
                directory / f"lab{next(numbers)}", together=together, command=CLOCK
            ) as lab:
                while waiting:
                    fault = waiting.pop(0)
                    outcome = await Trial(lab, fault, next(numbers)).run()
                    yield outcome
                    if outcome.problems:
                        break
