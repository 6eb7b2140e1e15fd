"""The supervisor: starts the workers, replaces those that die, and ends or renews all of them on a signal."""

import asyncio
import contextlib
import secrets
import signal
import socket
import tempfile
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from gateway.app import capacity
from gateway.app.listeners import open_address
from gateway.app.orders import Orders
from gateway.bus import MEMORY_URL
from gateway.config import Config
from gateway.config.address import parse_address
from gateway.config.check import LAST_SECONDS
from gateway.errors import ConfigError
from gateway.metrics import SupervisorMetrics
from gateway.transport.listener import open_listener
from gateway.workers.backoff import Backoff
from gateway.workers.front import Front
from gateway.workers.local_nats import LocalNats, find_binary
from gateway.workers.process import WorkerProcess

READY_SECONDS: Final = 30.0
"""How long a worker with a new configuration has to become ready, before the old ones are kept instead."""

PATIENCE_SECONDS: Final = 5.0
"""What a worker that ends may take beyond its drain before it is killed."""

_LONGEST_NAME: Final = 100
_KEPT: Final = ("server.public", "server.internal", "bus.server_binary", "bus.store_directory")
"""What only a restart changes, as this process holds it."""

_log = structlog.get_logger(__name__)


class _Slot:
    """The place of one worker.

    Attributes:
        listener: Its socket on the public port, which outlives it: clients that come meanwhile wait for its
            successor. None while nobody is there, nor about to be.
        worker: Who is in it.
        renewed: Whether a successor is on its way.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.listener: socket.socket | None = None
        self.worker: WorkerProcess | None = None
        self.renewed = False
        self.backoff = Backoff()

    def let_go(self) -> None:
        """Have the kernel send clients elsewhere."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None


class Pool:
    """All workers, from their start to their end; to be made and served within a running event loop.

    Args:
        read: Reads the configuration anew; raises :class:`ConfigError`.
        directory: For the Unix sockets, and for the local nats-server where no store is configured.
    """

    def __init__(
        self, config: Config, workers: int, *, read: Callable[[], Config], directory: Path
    ) -> None:
        self._config = config
        self._read = read
        self._directory = directory
        self._whole_path = directory / "supervisor"
        self._metrics = SupervisorMetrics()
        self._slots = [_Slot(number) for number in range(1, workers + 1)]
        self._leaving: set[WorkerProcess] = set()
        self._launched = count(1)
        self._codes: list[int] = []
        self._ending = asyncio.Event()
        self._renew = asyncio.Event()
        self._tasks = asyncio.TaskGroup()
        self._front = Front(
            lambda: [slot.worker for slot in self._slots], lambda: self._leaving, self._metrics
        )
        self._nats: LocalNats | None = None
        if config.bus.url == MEMORY_URL:
            self._nats = LocalNats(
                config,
                binary=find_binary(config.bus.server_binary),
                store=Path(config.bus.store_directory or directory / "nats").absolute(),
                restarted=self._metrics.restarts.labels("nats-server").inc,
            )
        self._internal = open_address(config.server.internal, public=False)
        for slot in self._slots:
            slot.listener = self._open_public()
        _log.info("listening", address=config.server.public, public=True, workers=workers)

    async def serve(self) -> int:
        """Start all, serve until a signal comes, drain, stop; returns the exit code.

        Raises:
            GatewayError: The local nats-server does not start.
        """
        self._catch_signals()
        await self._front.start(self._whole_path)
        await self._front.stand_in(self._internal, wanted=True)
        try:
            if self._nats is not None:
                await self._nats.start()
            async with self._tasks:
                lasting = [
                    self._tasks.create_task(self._renewals()),
                    self._tasks.create_task(self._watch_state()),
                ]
                if self._nats is not None:
                    lasting.append(self._tasks.create_task(self._nats.keep()))
                for slot in self._slots:
                    await self._fill(slot)
                await self._ending.wait()
                await self._end_workers()
                for task in lasting:
                    task.cancel()
        finally:
            await self._front.close()
            self._internal.close()
            if self._nats is not None:
                await self._nats.stop()
        _log.info("all workers stopped")
        return 1 if any(code not in (0, -signal.SIGTERM) for code in self._codes) else 0

    # --- one worker

    async def _fill(self, slot: _Slot) -> None:
        """Have somebody in a place."""
        try:
            slot.worker = await self._launch(slot, self._config, relieves=False)
        except OSError as problem:
            _log.error("worker cannot be started", worker=slot.number, problem=problem.strerror)
            self._start(self._refill(slot, slot.backoff.died(0)))

    async def _refill(self, slot: _Slot, delay: float) -> None:
        if delay:
            slot.let_go()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ending.wait(), delay)
        if not self._ending.is_set() and slot.worker is None and not slot.renewed:
            self._metrics.restarts.labels("worker").inc()
            await self._fill(slot)

    async def _launch(self, slot: _Slot, config: Config, *, relieves: bool) -> WorkerProcess:
        slot.listener = slot.listener or self._open_public()
        orders = Orders(
            worker=slot.number,
            config=self._of_one(slot.number, config),
            public=slot.listener.fileno(),
            internal=self._internal.fileno(),
            own_path=str(self._directory / f"worker-{slot.number}-{next(self._launched)}"),
            whole_path=str(self._whole_path),
            relieves=relieves,
        )
        worker = await WorkerProcess.start(orders)
        self._start(worker.look())
        self._start(self._watch(slot, worker))
        return worker

    def _of_one(self, number: int, config: Config) -> Config:
        """What one worker is configured with."""
        replace = msgspec.structs.replace
        name = config.server.replica or socket.gethostname()
        name = f"{name[:_LONGEST_NAME]}-{number}-{secrets.token_hex(3)}"
        memory = config.limits.memory_bytes or capacity.memory_bytes(0) // len(self._slots)
        url = config.bus.url if self._nats is None else self._nats.url
        return replace(
            config,
            server=replace(config.server, replica=name),
            limits=replace(config.limits, memory_bytes=memory),
            bus=replace(config.bus, url=url),
        )

    async def _watch(self, slot: _Slot, worker: WorkerProcess) -> None:
        code = await worker.wait()
        self._front.forget(worker)
        self._leaving.discard(worker)
        if self._ending.is_set():
            self._codes.append(code)
        if slot.worker is not worker:
            return
        slot.worker = None
        if self._ending.is_set():
            return
        delay = slot.backoff.died(worker.lived_seconds)
        _log.error("worker died", worker=slot.number, code=code, again_seconds=delay)
        if not slot.renewed:
            self._start(self._refill(slot, delay))

    # --- all of them

    async def _watch_state(self) -> None:
        """Take the internal port while no worker does, and count those that are up."""
        while True:
            up = sum(slot.worker is not None and slot.worker.up for slot in self._slots)
            self._metrics.workers.labels("up").set(up)
            self._metrics.workers.labels("down").set(len(self._slots) - up)
            await self._front.stand_in(self._internal, wanted=not up)
            await asyncio.sleep(0.1)

    async def _renewals(self) -> None:
        while True:
            await self._renew.wait()
            self._renew.clear()
            try:
                config = self._read()
            except ConfigError as problem:
                _log.error("configuration is not taken over", problems=problem.problems)
                continue
            if kept := self._cannot_change(config):
                _log.error("configuration is not taken over: it needs a restart", keys=kept)
                continue
            _log.info("workers are renewed")
            if await self._renew_all(config):
                self._config = config
                _log.info("all workers are renewed")

    def _cannot_change(self, config: Config) -> list[str]:
        def values(of: Config) -> dict[str, Any]:
            tables = msgspec.to_builtins(of)
            found = {key: tables[key.split(".")[0]][key.split(".")[1]] for key in _KEPT}
            return found | {"bus.url": of.bus.url == MEMORY_URL}

        before, after = values(self._config), values(config)
        return [key for key in before if before[key] != after[key]]

    async def _renew_all(self, config: Config) -> bool:
        """One after the other: the new one is ready before the old one leaves."""
        if self._nats is not None:
            self._nats.reload(config)
        for slot in self._slots:
            slot.renewed = True
            try:
                if not await self._renew_one(slot, config):
                    return False
            finally:
                slot.renewed = False
                if slot.worker is None:
                    self._start(self._refill(slot, 0))
        return True

    async def _renew_one(self, slot: _Slot, config: Config) -> bool:
        try:
            worker = await self._launch(slot, config, relieves=slot.worker is not None)
        except OSError as problem:
            _log.error("worker cannot be started", worker=slot.number, problem=problem.strerror)
            return False
        if not await self._first(worker.ready, worker.ended, self._ending, within=READY_SECONDS):
            if not self._ending.is_set():
                _log.error(
                    "configuration is not taken over: a worker does not become ready with it"
                )
            worker.signal(signal.SIGKILL)
            return False
        before, slot.worker = slot.worker, worker
        if before is not None:
            self._leaving.add(before)
            before.signal(signal.SIGHUP)
            await self._ended(before)
        return True

    async def _end_workers(self) -> None:
        for slot in self._slots:
            slot.let_go()
        there = [slot.worker for slot in self._slots if slot.worker is not None]
        for worker in (*there, *self._leaving):
            worker.signal(signal.SIGTERM)
        await asyncio.gather(*map(self._ended, (*there, *self._leaving)))

    async def _ended(self, worker: WorkerProcess) -> None:
        """Wait for the end of a worker that was told to; one that takes too long is killed."""
        drain = self._config.drain
        seconds = drain.delay_seconds + drain.window_seconds + LAST_SECONDS + PATIENCE_SECONDS
        try:
            await asyncio.wait_for(worker.ended.wait(), seconds)
        except TimeoutError:
            _log.error("worker does not end, and is killed", worker=worker.number)
            worker.signal(signal.SIGKILL)
            await worker.ended.wait()

    async def _first(self, wanted: asyncio.Event, *others: asyncio.Event, within: float) -> bool:
        """Whether one event comes before the others, and in time."""
        waiting = [asyncio.ensure_future(each.wait()) for each in (wanted, *others)]
        await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for each in waiting:
            each.cancel()
        return wanted.is_set() and not any(other.is_set() for other in others)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(work)

    def _open_public(self) -> socket.socket:
        return open_listener(*parse_address(self._config.server.public), reuse_port=True)

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        does = {signal.SIGTERM: self._end, signal.SIGINT: self._end, signal.SIGHUP: self._renew.set}
        for number, action in does.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup(1) has it
                loop.add_signal_handler(number, action)

    def _end(self) -> None:
        """Drain all, or, when that is under way, hurry."""
        if self._ending.is_set():
            for worker in (*(slot.worker for slot in self._slots), *self._leaving):
                if worker is not None:
                    worker.signal(signal.SIGTERM)
        self._ending.set()


def run(config: Config, workers: int, *, read: Callable[[], Config]) -> int:
    """Serve with so many workers until a signal ends it; returns the exit code.

    Raises:
        ConfigError: nats-server is needed and not there, or its store cannot be used.
        GatewayError: It does not start.
        OSError: An address cannot be listened on.
    """

    async def serve(directory: Path) -> int:
        return await Pool(config, workers, read=read, directory=directory).serve()

    with tempfile.TemporaryDirectory(prefix="gateway-") as directory:
        return asyncio.run(serve(Path(directory)))
