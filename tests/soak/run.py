"""A soak: clients on three replicas, messages, faults, and at the end the books are compared."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tests.faults.lab import Lab
from tests.faults.ledger import Finding, Ledger
from tests.faults.publisher import Publisher
from tests.faults.timeline import Timeline
from tests.soak.faults import Faults
from tests.soak.fleet import Fleet

JOINED_SECONDS = 60.0
SETTLED_SECONDS = 90.0
"""Far above the half minute in which a lost live copy is found, and a client's longest pause."""

SHOWN = 10


class Size(NamedTuple):
    """How big a soak is.

    Attributes:
        each: Topics of each client.
        rate: Messages per second, on all topics together.
        seconds: For how long at least; the round of faults that is under way then comes to its end.
    """

    clients: int
    topics: int
    each: int
    rate: float
    seconds: float


SHORT = Size(clients=30, topics=6, each=4, rate=40, seconds=0)
FULL = Size(clients=200, topics=20, each=20, rate=100, seconds=60)


class Report(NamedTuple):
    """What a soak came to.

    Attributes:
        problems: All that broke a promise; empty if all is well.
    """

    summary: list[str]
    problems: list[str]


async def soak(size: Size, seed: int, directory: Path, node: str) -> Report:
    """Run one; logs and stores are left in the directory."""
    chance = random.Random(seed)
    names = [f"room:{number}" for number in range(size.topics)]
    members = [chance.sample(names, size.each) for _ in range(size.clients)]
    ledger, timeline = Ledger(members), Timeline()
    async with (
        Lab(directory) as lab,
        Fleet(
            *(node, f"ws://127.0.0.1:{lab.balancer.port}/socket"), members, ledger, timeline
        ) as fleet,
        Publisher(lab.replicas, names, ledger, timeline.now, chance) as publisher,
    ):
        await fleet.joined(JOINED_SECONDS)
        timeline.note("all have joined")
        done = asyncio.Event()
        faults = Faults(lab, timeline, random.Random(seed))
        async with asyncio.TaskGroup() as group:
            group.create_task(publisher.pour(size.rate, done))
            end = timeline.now() + size.seconds
            while not faults.made or timeline.now() < end:
                await faults.round()
            timeline.note("the faults are over")
            done.set()
        timeline.note("everything is taken")
        settled = await fleet.complete(SETTLED_SECONDS)
        timeline.note("everything is there" if settled else "something does not come")
        # whatever were to come twice would come before these
        for name in names:
            await publisher.publish(name)
        await fleet.complete(SETTLED_SECONDS)
    findings = ledger.findings()
    problems = publisher.problems + fleet.problems + lab.errors()
    if len(publisher.epochs) > 1:
        problems.append("the epoch changed")
    problems += [_explain(finding, ledger, timeline) for finding in findings[:SHOWN]]
    if len(findings) > SHOWN:
        kinds = Counter(finding.kind for finding in findings)
        problems.append(f"all in all: {dict(kinds)}")
    if problems:
        problems.append("\n".join(["what happened:", *timeline.faults()]))
    summary = [
        f"{ledger.messages} messages taken, {ledger.deliveries} deliveries, {size}",
        f"faults: {dict(Counter(faults.made))}",
        f"publishes repeated: {publisher.refused}",
        f"joins: {dict(fleet.joins)}",
        f"closes: {dict(fleet.closes)}",
    ]
    return Report(summary, problems)


def _explain(finding: Finding, ledger: Ledger, timeline: Timeline) -> str:
    """A finding, with what happened around it."""
    client, topic, kind, numbers = finding
    stored = ledger.stored[topic]
    times = [stored[number].at for number in numbers if number in stored]
    lines = [f"client {client} on {topic}: {len(numbers)} {kind}"]
    for number in numbers[:SHOWN]:
        if number in stored:
            offset, at = stored[number]
            lines.append(f"  message {number}, offset {offset:x}, taken at {at:.3f}")
        else:
            lines.append(f"  message {number}, never taken")
    if times:
        lines.append("around it:")
        lines += timeline.around(min(times), min(times), client)
    return "\n".join(lines)
