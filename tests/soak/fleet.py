"""Many phoenix.js clients in one Node process, and what they report; see ``fleet.mjs``."""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections import Counter
from pathlib import Path
from typing import Any, Self

import msgspec

from tests.clients.npm import install
from tests.faults.ledger import Ledger
from tests.faults.timeline import Timeline
from tests.support.tokens import token

PACKAGES = 6 * ["phoenix-1.8"] + 2 * ["phoenix-1.7"] + 2 * ["phoenix-1.6"]
"""What the clients use, in turns."""

VERSION_1_EVERY = 7
"""One client in so many speaks version 1 of the protocol."""

POLLS_EVERY = 10
"""
One client in so many polls, with phoenix 1.8, whose long-poll transport runs in Node.

It speaks version 2: with that transport the package takes no serializer of another version.
"""

LINE_BYTES = 64 * 1024 * 1024

SCRIPT = Path(__file__).with_name("fleet.mjs")

Item = list[Any]


class Fleet:
    """The clients.

    Args:
        members: Topics of each client.

    Attributes:
        joins: Answers to joins, counted: ``fresh``, ``recovered``, or why not.
        closes: Close codes, counted.
        problems: What broke the contract of joins.
    """

    def __init__(
        self, node: str, url: str, members: list[list[str]], ledger: Ledger, timeline: Timeline
    ) -> None:
        self._node = node
        self._url = url
        self._members = members
        self._topics = sorted({topic for topics in members for topic in topics})
        self._ledger = ledger
        self._timeline = timeline
        self._process: Process
        self._reading: asyncio.Task[None]
        self._heard = asyncio.Event()
        self.joins: Counter[str] = Counter()
        self.closes: Counter[int] = Counter()
        self.problems: list[str] = []

    async def __aenter__(self) -> Self:
        packages = await asyncio.to_thread(install)
        self._process = await asyncio.create_subprocess_exec(
            *(self._node, str(SCRIPT), str(packages.parent), self._url),
            stdin=PIPE,
            stdout=PIPE,
            limit=LINE_BYTES,
        )
        self._reading = asyncio.create_task(self._read())
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._options()).encode() + b"\n")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._reading

    async def joined(self, within: float) -> None:
        """Return once each client has joined all its topics."""
        wanted = sum(map(len, self._members))
        await self._until(lambda: self.joins["fresh"] >= wanted, within)

    async def complete(self, within: float) -> bool:
        """Wait until every client has so many messages as were stored; whether they have."""
        try:
            await self._until(lambda: self._ledger.outstanding() == 0, within)
        except TimeoutError:
            return False
        return True

    async def _until(self, done: Any, within: float) -> None:
        async with asyncio.timeout(within):
            while not done():
                assert not self._reading.done(), "the clients' process has ended"
                self._heard.clear()
                await self._heard.wait()

    def _options(self) -> dict[str, Any]:
        number = {topic: index for index, topic in enumerate(self._topics)}
        return {
            "topics": self._topics,
            "clients": [
                {
                    "package": PACKAGES[client % len(PACKAGES)],
                    "polls": client % POLLS_EVERY == 0,
                    "v1": client % POLLS_EVERY != 0
                    and client % VERSION_1_EVERY == VERSION_1_EVERY - 1,
                    "token": token(str(client)),
                    "topics": [number[topic] for topic in topics],
                }
                for client, topics in enumerate(self._members)
            ],
        }

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                for item in msgspec.json.decode(line, type=list[Item]):
                    self._take(item)
                self._heard.set()
        finally:
            self._heard.set()

    def _take(self, item: Item) -> None:
        note = self._timeline.note
        match item:
            case ["got", int(client), int(topic), int(number)]:
                self._ledger.get(client, self._topics[topic], number)
            case ["ok", client, topic, recovered, reason, asked]:
                name = self._topics[topic]
                note(f"client {client} joined {name} from {asked}: recovered {recovered}", client)
                self.joins[reason or ("fresh" if recovered is None else "recovered")] += 1
                if recovered is not (None if asked is None else True):
                    self.problems.append(
                        f"client {client} joined {name} from {asked} and was told"
                        f" recovered {recovered}, {reason}; around it:\n{self._context(client)}"
                    )
            case ["no", client, topic, reason]:
                note(f"client {client} was refused on {self._topics[topic]}: {reason}", client)
                self.joins[reason] += 1
            case ["timeout", client, topic]:
                note(f"client {client} had no answer on {self._topics[topic]}", client)
                self.joins["timeout"] += 1
            case ["open", client]:
                note(f"client {client} is connected", client)
            case ["closed", client, code]:
                note(f"client {client} was closed: {code}", client)
                self.closes[code] += 1
            case ["bare", client, topic, number]:
                name = self._topics[topic]
                self.problems.append(f"client {client} got {number} on {name} without a position")
            case _:
                self.problems.append(f"the clients reported {item}")

    def _context(self, client: int) -> str:
        now = self._timeline.now()
        return "\n".join(self._timeline.around(now, now, client))
