"""One worker as its supervisor sees it: a process, and what it says of itself."""

import asyncio
import contextlib
import signal
import sys
import time
from typing import Final, NamedTuple, Self

import aiohttp
import msgspec
import structlog
from aiohttp import hdrs

from gateway.api.types import ReadinessReport
from gateway.app.orders import Orders

STUCK_SECONDS: Final = 10.0
"""Silence after which a worker is ended, as an orchestrator would end a replica."""

STARTING_LOOKS_SECONDS: Final = 0.05
LOOKS_SECONDS: Final = 1.0
"""Time between two looks at a worker that is not up yet, and that is."""

_log = structlog.get_logger(__name__)


class WorkerAnswer(NamedTuple):
    """An HTTP answer of a worker."""

    status: int
    body: bytes
    content_type: str


class WorkerProcess:
    """One process.

    Attributes:
        number: Of the worker; one that relieves another has the same.
        name: The replica's, of this process alone.
        up: Whether it has answered, and so takes requests on the internal port.
        ready: Set while it is.
        ended: Set when it has.
    """

    def __init__(self, orders: Orders, process: asyncio.subprocess.Process) -> None:
        self.number = orders.worker
        self.name = orders.config.server.replica
        self.up = False
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self._process = process
        self._began_at = time.monotonic()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(orders.own_path, force_close=True)
        )

    @classmethod
    async def start(cls, orders: Orders) -> Self:
        """Start a worker. It ends when this process does, whose pipe it reads.

        Raises:
            OSError: The system has no process left for it.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.workers",
            str(orders.worker),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=(orders.public, orders.internal),
            process_group=0,  # what a terminal signals is for the supervisor
        )
        assert process.stdin is not None  # noqa: S101 -- it is a pipe
        process.stdin.write(msgspec.json.encode(orders) + b"\n")
        _log.info("worker started", worker=orders.worker, pid=process.pid)
        return cls(orders, process)

    @property
    def lived_seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._began_at

    def doubt(self) -> str:
        """Why it is not ready, when it does not say so itself."""
        return "worker_down" if self.up else "starting"

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it has not ended."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for its end; returns its exit code, negative for a signal."""
        code = await self._process.wait()
        self.ready.clear()
        self.ended.set()
        await self._session.close()
        return code

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        key: str | None = None,
        within: float = 2.0,
    ) -> WorkerAnswer | None:
        """Ask it about itself; None if it does not answer.

        Args:
            key: The header ``Authorization``.
            within: Seconds.

        Raises:
            TimeoutError: Not in time, though it is there.
        """
        headers = {} if key is None else {hdrs.AUTHORIZATION: key}
        try:
            async with (
                asyncio.timeout(within),
                self._session.request(method, f"http://worker{path}", headers=headers) as answer,
            ):
                content_type = answer.headers.get(hdrs.CONTENT_TYPE, "")
                return WorkerAnswer(answer.status, await answer.read(), content_type)
        except (aiohttp.ClientError, RuntimeError, OSError) as problem:
            # RuntimeError: the session was closed, as it has ended
            if isinstance(problem, TimeoutError):
                raise
            return None

    async def reasons(self) -> list[str]:
        """Why no new clients should be sent to it; empty when it is ready."""
        try:
            answer = await self.ask("/readyz")
        except TimeoutError:
            answer = None
        if answer is None:
            return [self.doubt()]
        return msgspec.json.decode(answer.body, type=ReadinessReport).reasons

    async def look(self) -> None:
        """Notice that it is up, ready, or stuck, until it has ended. One that is stuck is killed."""
        while not self.ended.is_set():
            try:
                answer = await self.ask("/readyz", within=STUCK_SECONDS)
            except TimeoutError:
                _log.error("worker is stuck, and killed", worker=self.number, pid=self._process.pid)
                self.signal(signal.SIGKILL)
                return
            if answer is not None:
                self.up = True
            if answer is not None and answer.status == 200:
                self.ready.set()
            else:
                self.ready.clear()
            pause = LOOKS_SECONDS if self.ready.is_set() else STARTING_LOOKS_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), pause)
