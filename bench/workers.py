"""Several workers beside one process: what they carry when saturated, and how soon clients are back."""

import contextlib
import os
import select
import signal
import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from bench.options import Options
from bench.proc import Cores, ServerProcess, cpu_of
from bench.remote import Remote
from bench.report import ratio
from bench.scenarios import Figures
from bench.servers.base import EVENT, PAYLOAD, TOPIC, post
from bench.servers.gateway import API_KEY, Gateway
from bench.wire import LoadError, Wire, unmasked

WORKERS: Final = 2
ROUNDS: Final = 3
BATCH: Final = 50
"""Messages of one request. The next request is sent when this one is answered: long before all have them."""

STALLED_SECONDS: Final = 60.0
_READ_BYTES: Final = 262_144


class WorkersGateway(Gateway):
    """A gateway of so many workers; of more than one with a nats-server of its own."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self._workers = workers

    def command(self, directory: Path) -> list[str]:
        return [*super().command(directory), "--workers", str(self._workers)]


class Crowd:
    """The clients, within their process: they count bytes, as all messages have the same."""

    def __init__(self, server: Gateway) -> None:
        self._server = server
        self._epoll = select.epoll()
        self._numbers: dict[int, int] = {}
        self._received: dict[int, int] = {}
        self._frame_bytes = len(unmasked(server.text()))

    def join(self, count: int) -> None:
        """Connect and join so many."""
        for number in range(count):
            self._come(number)

    def deliver(self, batches: int) -> float:
        """Publish as fast as is answered; returns the seconds until everybody has everything."""
        message = b'{"topic":"%b","event":"%b","payload":%b}' % (
            TOPIC.encode(),
            EVENT.encode(),
            PAYLOAD,
        )
        request = post(
            "/v1/publish/batch",
            b'{"messages":[%b]}' % b",".join([message] * BATCH),
            b"Authorization: Bearer %b\r\n" % API_KEY.encode(),
        )
        self._received = dict.fromkeys(self._numbers, 0)
        wanted = batches * BATCH * self._frame_bytes
        missing = len(self._numbers)
        began = time.monotonic()
        with contextlib.closing(Wire(self._server.publish_port)) as wire:
            for _ in range(batches):
                wire.ask(request)
                missing -= self._read(wanted, 0)
                wire.answered()
        while missing:
            missing -= self._read(wanted, 0)
            if time.monotonic() > began + STALLED_SECONDS:
                raise LoadError(f"{missing} clients lack messages")
        return time.monotonic() - began

    def come_back(self, lost: int) -> float:
        """Wait until so many were cut off, and have them join again; returns the seconds that took."""
        began = time.monotonic()
        gone: list[int] = []
        while len(gone) < lost:
            if time.monotonic() > began + STALLED_SECONDS:
                raise LoadError(f"{len(gone)} clients were cut off, not {lost}")
            for descriptor, _ in self._epoll.poll(0.01, 1024):
                self._epoll.unregister(descriptor)
                gone.append(self._numbers.pop(descriptor))
                os.close(descriptor)
        for number in gone:
            while True:
                try:
                    self._come(number)
                except (OSError, LoadError):  # not now, says a worker that has just started
                    if time.monotonic() > began + STALLED_SECONDS:
                        raise
                    time.sleep(0.01)
                else:
                    break
        seconds = time.monotonic() - began
        if self._epoll.poll(0.1, 1):
            raise LoadError("a client of the other worker noticed something")
        return seconds

    def close(self) -> None:
        for descriptor in self._numbers:
            os.close(descriptor)
        self._epoll.close()

    def _come(self, number: int) -> None:
        wire = Wire(self._server.port)
        try:
            self._server.join(wire, number)
            descriptor = wire.detach()
        except BaseException:
            wire.close()
            raise
        self._numbers[descriptor] = number
        self._epoll.register(descriptor, select.EPOLLIN)

    def _read(self, wanted: int, seconds: float) -> int:
        """Read what there is; returns how many have all they should now."""
        whole = 0
        for descriptor, _ in self._epoll.poll(seconds, 1024):
            data = os.read(descriptor, _READ_BYTES)
            if not data:
                raise LoadError("a client was closed by the server")
            self._received[descriptor] += len(data)
            if self._received[descriptor] > wanted:
                raise LoadError("a client got something that is no message")
            whole += self._received[descriptor] == wanted
        return whole


def run(cores: Cores, options: Options) -> str:
    """Measure; returns the table."""
    clients = 200 if options.quick else options.connections
    batches = 10 if options.quick else 100
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    one: list[Figures] = []
    two: list[Figures] = []
    for _ in range(rounds):
        one.append(_round(1, cores, clients, batches))
        two.append(_round(WORKERS, cores, clients, batches))

    def middle(results: list[Figures], name: str) -> str:
        return f"{median(each[name] for each in results):,.2f}"

    def beside(name: str) -> str:
        return ratio([each[name] for each in two], [each["deliveries"] for each in one])

    return (
        f"| | one process | {WORKERS} workers |\n|---|--:|--:|\n"
        f"| CPU µs a delivery, of all workers | {middle(one, 'worker_us')}"
        f" | {middle(two, 'worker_us')} |\n"
        f"| the same, of the supervisor and its nats-server | - | {middle(two, 'other_us')} |\n"
        f"| share of the busiest worker in that of all | 1.00 | {middle(two, 'share')} |\n"
        f"| deliveries for each CPU second of the busiest worker, beside one process | 1.00"
        f" | {beside('deliveries')} |\n"
        f"| the same, if {WORKERS} cores had to do for supervisor and nats-server, too | 1.00"
        f" | {beside('deliveries_of_all')} |\n"
        f"| seconds after a kill -9 until the worker's clients have joined again | -"
        f" | {middle(two, 'back_seconds')} |\n"
        f"\n{clients:,} clients of one topic, {batches * BATCH:,} messages of 128 bytes as fast as they are"
        f" taken, medians of {rounds} {'round' if rounds == 1 else 'rounds'}; in brackets the lowest and"
        " highest ratio of a round. All processes of the gateway share one core and the clients have the"
        " other, so it is CPU time that is compared: what workers would carry on cores of their own.\n"
    )


def _round(workers: int, cores: Cores, clients: int, batches: int) -> Figures:
    server = WorkersGateway(workers)
    with ServerProcess(server, cores) as process, Remote(partial(Crowd, server)) as crowd:
        crowd.call(60 + clients * 0.05, Crowd.join, clients)
        crowd.call(STALLED_SECONDS * 2, Crowd.deliver, 2)
        children = psutil.Process(process.pid).children()
        serving = [each.pid for each in children if "gateway.workers" in each.cmdline()]
        others = [process.pid, *(each.pid for each in children if each.pid not in serving)]
        if workers == 1:
            serving, others = [process.pid], []
        before = {pid: _cpu(pid) for pid in (*serving, *others)}
        crowd.call(STALLED_SECONDS * 2, Crowd.deliver, batches)
        used = {pid: _cpu(pid) - before[pid] for pid in before}
        deliveries = clients * batches * BATCH
        all_workers = sum(used[pid] for pid in serving)
        busiest = max(used[pid] for pid in serving)
        figures = {
            "worker_us": all_workers / deliveries * 1e6,
            "other_us": sum(used[pid] for pid in others) / deliveries * 1e6,
            "share": busiest / all_workers,
            "deliveries": deliveries / busiest,
            "deliveries_of_all": deliveries / (sum(used.values()) / workers),
        }
        if workers > 1:
            lost = _connections(serving[0], server.port)
            os.kill(serving[0], signal.SIGKILL)
            figures["back_seconds"] = crowd.call(STALLED_SECONDS * 2, Crowd.come_back, lost)
        return figures


def _cpu(pid: int) -> float:
    used = cpu_of(pid)
    return used.user + used.kernel


def _connections(pid: int, port: int) -> int:
    """How many clients a worker has."""
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port
        for each in psutil.Process(pid).net_connections(kind="tcp")
    )
