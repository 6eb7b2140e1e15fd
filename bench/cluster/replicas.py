"""The gateways of the part ``cluster``, and what they and nats-server have used since a moment."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Self

from bench.cluster.nats import Traffic, WatchedNats
from bench.idle import await_replicas
from bench.proc import Cores, Cpu, ServerProcess
from bench.servers.gateway import Gateway
from bench.wire import Wire

ROOM_MEMBERS = 20


class Replica(Gateway):
    """A replica with a name, whose clients are each a user with a device, twenty to a room.

    Args:
        presence: Whether a room's members are shown to each other.
    """

    def __init__(self, bus: str, name: str, *, presence: bool = True) -> None:
        super().__init__(bus, presence=presence, devices=True, members=ROOM_MEMBERS)
        self.name = name

    def environment(self) -> dict[str, str]:
        return super().environment() | {"GATEWAY_SERVER__REPLICA": self.name}


class Replicas:
    """Replicas on one nats-server; the first has a core to itself, all else has the other.

    Attributes:
        servers: In the order they were started.
    """

    def __init__(self, nats: WatchedNats, cores: Cores, *, presence: bool = True) -> None:
        self._nats = nats
        self._cores = cores
        self._presence = presence
        self.servers: list[Replica] = []
        self._stacks: list[ExitStack] = []
        self._processes: list[ServerProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stack in self._stacks:
            stack.close()

    def grow(self, count: int) -> None:
        """Start more, until there are so many and each is known to the first."""
        while len(self.servers) < count:
            name = f"replica-{len(self.servers)}"
            self.servers.append(Replica(self._nats.url, name, presence=self._presence))
            self._stacks.append(ExitStack())
            self._processes.append(self._started(len(self.servers) - 1))
        self.meet()

    def meet(self) -> None:
        """Wait until the first knows all."""
        with closing(Wire(self.servers[0].publish_port)) as wire:
            await_replicas(wire, len(self.servers))

    def stop(self, number: int) -> None:
        """End one in order."""
        self._stacks[number].close()

    def start(self, number: int) -> None:
        """Start it again."""
        self._processes[number] = self._started(number)

    def watch(self, number: int = 0) -> "Watch":
        """What one uses from now on."""
        return Watch(self._nats, self._processes[number], self.servers[number].name)

    def _started(self, number: int) -> ServerProcess:
        beside = Cores(server=self._cores.load, load=self._cores.load)
        process = ServerProcess(self.servers[number], beside if number else self._cores)
        return self._stacks[number].enter_context(process)


@contextmanager
def replicas(
    cores: Cores, count: int, *, presence: bool = True
) -> Iterator[tuple[Replicas, WatchedNats]]:
    """So many replicas, and their nats-server."""
    with WatchedNats(cores.load) as nats, Replicas(nats, cores, presence=presence) as all_of_them:
        all_of_them.grow(count)
        yield all_of_them, nats


class Watch:
    """What one replica and nats-server have used since this was made."""

    def __init__(self, nats: WatchedNats, process: ServerProcess, name: str) -> None:
        self._nats = nats
        self._process = process
        self._name = name
        self._began = time.monotonic()
        self._traffic, self._everything = nats.of(name), nats.all()
        self._cpu, self._nats_cpu = _sum(process.cpu()), _sum(nats.cpu())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def cpu(self) -> float:
        """CPU seconds of the replica."""
        return _sum(self._process.cpu()) - self._cpu

    @property
    def nats_cpu(self) -> float:
        """CPU seconds of nats-server."""
        return _sum(self._nats.cpu()) - self._nats_cpu

    @property
    def traffic(self) -> Traffic:
        """What went between the replica and NATS."""
        return self._nats.of(self._name) - self._traffic

    @property
    def everything(self) -> Traffic:
        """What went between all and NATS."""
        return self._nats.all() - self._everything


def _sum(cpu: Cpu) -> float:
    return cpu.user + cpu.kernel
