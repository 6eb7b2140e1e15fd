"""A JavaScript client, driven through ``node/driver.mjs``."""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from typing import Any

from tests.clients.npm import DIRECTORY
from tests.support.gateway import GatewayProcess

WITHIN_SECONDS = 60.0

Seen = dict[str, Any]


class Driver:
    """One run of a scenario.

    Attributes:
        seen: All it reported so far.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.seen: list[Seen] = []

    @classmethod
    async def start(
        cls, node: str, package: str, scenario: str, gateway: GatewayProcess, options: Seen
    ) -> "Driver":
        """Start a scenario with a package of ``node/package.json``."""
        url = gateway.socket_url.removesuffix("/websocket")  # which the packages append themselves
        command = [node, "driver.mjs", package, scenario, url, json.dumps(options)]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=DIRECTORY, stdout=PIPE, stderr=PIPE
        )
        return cls(process)

    async def expect(self, saw: str) -> Seen:
        """Read on until it reports this, and return that report."""
        assert self._process.stdout is not None
        async with asyncio.timeout(WITHIN_SECONDS):
            async for line in self._process.stdout:
                self.seen.append(json.loads(line))
                if self.seen[-1]["saw"] == saw:
                    return self.seen[-1]
        raise AssertionError(f"it never saw {saw!r}, only {self.seen}:\n{await self._complaint()}")

    async def finish(self) -> list[Seen]:
        """All it saw, once it has ended well."""
        await self.expect("end")
        assert await self._process.wait() == 0, await self._complaint()
        return self.seen[:-1]

    async def _complaint(self) -> str:
        assert self._process.stderr is not None
        return (await self._process.stderr.read()).decode()

    async def end(self) -> None:
        """Kill it, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()
