"""Keeps processes running: what ends is started again, unless somebody stopped it. For the demo only."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import aiohttp

RESTART_SECONDS: Final = 2
"""Between an end and the next start: so long one can see that nothing is missed meanwhile."""

END_SECONDS: Final = 10
PROBE_SECONDS: Final = 0.1
LOG_TAIL: Final = 2000


class Ended(Exception):
    """A process that did not start, with the end of its log."""


class Part:
    """One process after the other that does the same work.

    Args:
        log: File for what they write.
        probe: URL that answers 200 once one is ready.

    Attributes:
        state: ``starting``, ``up``, ``down`` for the moment until it starts again, or ``stopped``.
        starts: How often one was started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        probe: str,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.state = "starting"
        self.starts = 0
        self._command = command
        self._log = log
        self._probe = probe
        self._environment = {
            key: value for key, value in os.environ.items() if key[:8] != "GATEWAY_"
        } | dict(environment or {})
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Start it, and again whenever it ended; for ever."""
        while True:
            await self._wanted.wait()
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    start_new_session=True,  # Ctrl-C is for this process, which ends the others in order
                )
            self.state = "starting"
            self.starts += 1
            ready = asyncio.ensure_future(self._become_ready())
            code = await self._process.wait()
            ready.cancel()
            self.state = "down" if self._wanted.is_set() else "stopped"
            print(f"  {self.name} ended with {code}", flush=True)
            await asyncio.sleep(RESTART_SECONDS)

    async def ready(self) -> None:
        """Return when the first one is.

        Raises:
            Ended: It ended instead.
        """
        while self.state != "up":
            if self.state != "starting":
                log = self._log.read_text(errors="replace")[-LOG_TAIL:]
                raise Ended(f"{self.name} does not start:\n{log}")
            await asyncio.sleep(PROBE_SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def stop(self) -> None:
        """SIGTERM, and no start before :meth:`start`."""
        self._wanted.clear()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()

    def start(self) -> None:
        """Take :meth:`stop` back."""
        self._wanted.set()

    async def end(self) -> None:
        """Stop it for good; :meth:`keep` must have been cancelled."""
        self.stop()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), END_SECONDS)
            except TimeoutError:
                self.kill()
                await self._process.wait()

    async def _become_ready(self) -> None:
        async with aiohttp.ClientSession() as http:
            while self.state != "up":
                if await _answers(http, self._probe):
                    self.state = "up"
                await asyncio.sleep(PROBE_SECONDS)


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
