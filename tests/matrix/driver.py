"""A client of others behind one small interface: lines of JSON in, lines of JSON out.

A driver does what it is told, ``{"do": what, "as": socket, …}``, for any number of sockets, which the matrix
names, and reports what its client shows an application, ``{"saw": what, "as": socket, …}``:

=============================================== ========================================================
it is told                                      it reports
=============================================== ========================================================
``connect`` url, token, renews, beat            ``open`` and ``closed``, as often as that happens; ``error``
``join`` topic, resume, presence                ``joined`` response, at each rejoin too; ``refused`` response;
                                                ``heard`` event, payload; ``present`` users
``push`` topic, event, payload                  ``answer`` status, response
``blob`` topic, event, bytes                    the same
``leave`` topic                                 ``left``
``close``                                       nothing that counts: the socket is to end
``token`` token                                 nothing: it is what a renewing socket gives from now on
=============================================== ========================================================

``beat`` is its heartbeat's interval in milliseconds, where the client lets that be set. What comes as bytes
is reported as ``{"bytes": […]}``; what is thrown outside all calls, as ``thrown`` of ``any``. The end of its
input ends it.
"""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from pathlib import Path
from typing import Any

WITHIN_SECONDS = 45.0
LINE_BYTES = 1 << 20

Seen = dict[str, Any]


class Driver:
    """One that runs.

    Attributes:
        seen: All it reported.
    """

    def __init__(self, process: Process, log: Path) -> None:
        self.seen: list[Seen] = []
        self._process = process
        self._log = log
        self._news = asyncio.Condition()
        self._ended = False
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: tuple[str, ...], directory: Path, log: Path) -> "Driver":
        """Start one in a folder; what it writes to standard error goes to the log."""
        with log.open("wb") as complaints:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=directory,
                stdin=PIPE,
                stdout=PIPE,
                stderr=complaints,
                limit=LINE_BYTES,
            )
        return cls(process, log)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            async with self._news:
                self.seen.append(json.loads(line))
                self._news.notify_all()
        async with self._news:
            self._ended = True
            self._news.notify_all()

    async def tell(self, do: str, socket: str, **details: Any) -> None:
        """Have it do something."""
        assert self._process.stdin is not None
        line = json.dumps({"do": do, "as": socket} | details)
        assert not self._ended, f"the driver ended: {self._last()}"
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    def all(self, saw: str, socket: str, **details: Any) -> list[Seen]:
        """All it reported of a kind about a socket, with these details."""
        wanted = {"saw": saw, "as": socket} | details
        return [item for item in self.seen if wanted.items() <= item.items()]

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Return once something holds.

        Raises:
            AssertionError: It does not, in the time there is, or the driver ended.
        """
        try:
            async with asyncio.timeout(WITHIN_SECONDS), self._news:
                await self._news.wait_for(lambda: holds() or self._ended)
        except TimeoutError:
            pass
        assert holds(), f"{what}: {self._last()}"

    async def expect(self, saw: str, socket: str, times: int = 1, **details: Any) -> Seen:
        """The so-manieth report of a kind about a socket since the beginning."""
        what = f"no {saw} of {socket}, {details}, {times} times"
        await self.until(lambda: len(self.all(saw, socket, **details)) >= times, what)
        return self.all(saw, socket, **details)[times - 1]

    async def end(self) -> None:
        """Kill it, if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reader

    def _last(self) -> str:
        said = "\n".join(json.dumps(item, ensure_ascii=False)[:300] for item in self.seen[-12:])
        return f"it saw\n{said}\nand wrote\n{self._log.read_text(errors='replace')[-2000:]}"
