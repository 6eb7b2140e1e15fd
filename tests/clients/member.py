"""A JavaScript client that stays for as long as a test wants and does what it is told."""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from typing import Any

from tests.clients.driver import WITHIN_SECONDS, Seen
from tests.clients.npm import DIRECTORY
from tests.support.gateway import GatewayProcess

Meta = dict[str, Any]

LIVES_SECONDS = 120
"""After which the client ends by itself, should its test have been killed."""


class Member:
    """A scenario of ``node/driver.mjs`` that does as it is told: ``member``, a channel and its ``Presence``.

    Attributes:
        seen: All it reported so far, as far as the test has read on.
        users: Metas by user, as the package's ``Presence`` last listed them.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.seen: list[Seen] = []
        self.users: dict[str, list[Meta]] = {}

    @classmethod
    async def start(
        cls,
        node: str,
        package: str,
        gateway: GatewayProcess,
        topic: str,
        *,
        scenario: str = "member",
        **options: Any,
    ) -> "Member":
        """Start one, which connects and joins; ``options`` go to its Socket."""
        url = gateway.socket_url.removesuffix("/websocket")
        options |= {"topic": topic, "withinMs": LIVES_SECONDS * 1000}
        command = [node, "driver.mjs", package, scenario, url, json.dumps(options)]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=DIRECTORY, stdin=PIPE, stdout=PIPE
        )
        return cls(process)

    async def read(self) -> Seen:
        """The next thing it reports."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, f"it ended, and had seen {self.seen}"
        report: Seen = json.loads(line)
        self.seen.append(report)
        if report["saw"] == "sync":
            self.users = {item["user"]: item["metas"] for item in report["users"]}
        return report

    async def until(self, wanted: Callable[[], bool], within: float = WITHIN_SECONDS) -> None:
        """Read on until something holds."""
        try:
            async with asyncio.timeout(within):
                while not wanted():
                    await self.read()
        except TimeoutError:
            raise AssertionError(f"not within {within} s; it had seen {self.seen}") from None

    async def expect(self, saw: str, times: int = 1) -> Seen:
        """The so-manieth report of a kind since the beginning."""
        await self.until(lambda: len(self.all(saw)) >= times)
        return self.all(saw)[times - 1]

    def all(self, saw: str, **details: Any) -> list[Seen]:
        """All reports of a kind so far, with these details."""
        wanted = {"saw": saw} | details
        return [item for item in self.seen if wanted.items() <= item.items()]

    async def shows(self, **users: int) -> None:
        """Return once it lists just these users, with so many metas each."""
        await self.until(lambda: {user: len(m) for user, m in self.users.items()} == users)

    async def sees(self, user: str, **fields: Any) -> None:
        """Return once it lists a user whose first meta has these fields."""
        await self.until(lambda: fields.items() <= self.users.get(user, [{}])[0].items())

    async def is_told(self, payload: Any) -> None:
        """Return once the last event about presence it was sent has this payload."""
        await self.until(lambda: [m["payload"] for m in self.all("message")[-1:]] == [payload])

    async def watch(self, seconds: float) -> None:
        """Read on for so long, whatever comes."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self.read()
        except TimeoutError:
            return

    async def tell(self, what: str, **details: Any) -> None:
        """Have it do something, one of the scenario's commands."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"what": what} | details).encode() + b"\n")
        await self._process.stdin.drain()

    async def push(self, event: str, payload: Any) -> Seen:
        """Push on its channel; what the channel was answered."""
        answers = len(self.all("answer"))
        await self.tell("push", event=event, payload=payload)
        return await self.expect("answer", answers + 1)

    async def go(self) -> None:
        """Disconnect and end, as a page that is closed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self.until(lambda: self.seen[-1:] == [{"saw": "end"}])
        assert await self._process.wait() == 0

    async def end(self) -> None:
        """Kill it, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()
