"""The scenarios of Gateway alone: each starts what it needs, and returns figures by case."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from itertools import cycle, islice
from typing import Final

from bench.builds import WORKING_TREE
from bench.idle import await_replicas
from bench.nats import Nats
from bench.performance.beside import Cases, delivered, figures, spent
from bench.performance.crowd import Load
from bench.performance.settings import Settings
from bench.presence import presence
from bench.proc import Cores, Cpu, ServerProcess
from bench.pushing import push
from bench.resuming import resume
from bench.servers.gateway import EquippedGateway
from bench.servers.keeping import BATCH, KeepingGateway, batch, single
from bench.wire import Wire

PUSHES: Final = 20_000
PUBLISHES: Final = 5000
BATCHES: Final = 40
MEMBERS: Final = 2000
RETURNING: Final = 3000
RETURNING_SECONDS: Final = 3.0
USERS: Final = 2000
IDLE: Final = 2000
IDLE_SECONDS: Final = 6.0
SLOW: Final = 20
REPLICAS: Final = (1, 2, 4, 8)
EACH: Final = 250
"""Subscribers of each replica."""

REPLICA_RATE: Final = 20.0
CROSS_RATE: Final = 1000.0


class Personal(EquippedGateway):
    """A replica whose clients each are a user, and join that user's own topic."""

    def __init__(self) -> None:
        super().__init__(WORKING_TREE, members=1)

    def topic(self, number: int) -> str:
        return f"user:{self.user(number)}"

    def user(self, number: int) -> str:
        return str(10_000 + number)


class Together(EquippedGateway):
    """A replica of a cluster; the clients go to all of them by turns, and messages to this one."""

    def __init__(self, bus: str) -> None:
        super().__init__(WORKING_TREE, bus)
        self.ports = [self.port]

    def port_of(self, number: int) -> int:
        return self.ports[number % len(self.ports)]


def users(cores: Cores, settings: Settings) -> Cases:
    """Messages to users, each on one socket, by the topic that is theirs alone."""
    server, count = Personal(), USERS // settings.share
    with ServerProcess(server, cores) as process, Load(server, count) as load:
        load.arrive(count)
        rate = 1000.0 / settings.share
        return {"user": delivered(process, load, round(rate * settings.seconds), rate)}


def pushes(cores: Cores, settings: Settings) -> Cases:
    """Pushes with reply, with an echo and without."""
    return {"push": push(WORKING_TREE, cores, PUSHES // settings.share)}


def publish(cores: Cores, settings: Settings) -> Cases:
    """Messages nobody subscribes to, one a request and in batches, stored in memory or not."""
    server = KeepingGateway("memory://")
    cases: Cases = {}
    with ServerProcess(server, cores) as process, closing(Wire(server.publish_port)) as wire:
        for kind, start in (("ephemeral", "room"), ("stored", "kept")):
            topics = islice(cycle(f"{start}:{number}" for number in range(20)), BATCH)
            many = batch((topic, number) for number, topic in enumerate(topics))
            count = PUBLISHES // settings.share
            used = _asked(process, wire, single(f"{start}:0", 0), count)
            cases[f"single {kind}"] = spent(used, count, "us")
            count = max(2, BATCHES // settings.share)
            used = _asked(process, wire, many, count)
            cases[f"batch {kind}"] = spent(used, count * BATCH, "us")
    return cases


def _asked(process: ServerProcess, wire: Wire, request: bytes, count: int) -> Cpu:
    """The CPU of so many requests, one after another, a tenth more before."""
    for _ in range(count // 10):
        wire.ask(request)
        wire.answered()
    before = process.cpu()
    for _ in range(count):
        wire.ask(request)
        wire.answered()
    return process.cpu() - before


def crowd(cores: Cores, settings: Settings) -> Cases:
    """Members of one topic with presence that come at once, and are all told of each other."""
    return {"presence": presence(cores, MEMBERS // settings.share, 0.0, 20)}


def returning(cores: Cores, settings: Settings) -> Cases:
    """Clients of a replica that died, which resume on another."""
    clients = RETURNING // settings.share
    return {"resume": resume(cores, "one", clients, RETURNING_SECONDS / settings.share)}


def idle(cores: Cores, settings: Settings) -> Cases:
    """Clients that do nothing but send a heartbeat every 30 seconds."""
    server, count = EquippedGateway(WORKING_TREE), IDLE // settings.share
    with ServerProcess(server, cores) as process, Load(server) as load:
        load.arrive(count)
        time.sleep(settings.settle_seconds)
        before = process.cpu()
        seconds = IDLE_SECONDS if settings.share == 1 else 1.0
        load.idle(seconds)
        used = process.cpu() - before
    share = (used.user + used.kernel) / seconds
    return {"idle": {"percent": share * 100, "percent_of_1000": share * 100 * 1000 / count}}


def slow(cores: Cores, settings: Settings) -> Cases:
    """The others, when one in a hundred reads nothing any more."""
    server = EquippedGateway(WORKING_TREE)
    with ServerProcess(server, cores) as process, Load(server) as load:
        load.arrive(settings.subscribers)
        rate = settings.rates[1]
        messages = round(rate * settings.seconds)
        cases = {"without": delivered(process, load, messages, rate)}
        load.stall(SLOW if settings.share == 1 else 1)
        return cases | {"with": delivered(process, load, messages, rate)}


def cross(cores: Cores, settings: Settings) -> Cases:
    """From a POST on one replica to a client on another, by way of NATS."""
    with Nats(cores.load) as nats, _cluster(nats, cores, 2) as (server, processes):
        server.ports = server.ports[1:]
        with Load(server) as load:
            load.arrive(1)
            rate = CROSS_RATE / settings.share
            return {"cross": delivered(processes[0], load, round(rate * settings.seconds), rate)}


def cluster(cores: Cores, settings: Settings) -> Cases:
    """More replicas, as many clients on each: what each costs idle, and all of them for a delivery."""
    cases: Cases = {}
    for count in REPLICAS if settings.share == 1 else REPLICAS[:2]:
        with (
            Nats(cores.load) as nats,
            _cluster(nats, cores, count) as (server, processes),
            Load(server) as load,
        ):
            load.arrive(EACH * count // settings.share)
            time.sleep(settings.settle_seconds)
            before = _all(processes)
            time.sleep(settings.seconds)
            used = _all(processes) - before
            found = {
                "idle_percent": (used.user + used.kernel) / settings.seconds / count * 100,
            }
            load.publish(5, REPLICA_RATE)
            before = _all(processes)
            delivery = load.publish(round(REPLICA_RATE * settings.seconds), REPLICA_RATE)
            cases[f"{count}"] = found | figures(_all(processes) - before, delivery)
    return cases


class _cluster:  # noqa: N801 -- a context manager like a function
    """Replicas that know of each other, of which the first is published to."""

    def __init__(self, nats: Nats, cores: Cores, count: int) -> None:
        self._servers = [Together(nats.url) for _ in range(count)]
        self._cores = cores
        self._stack = ExitStack()

    def __enter__(self) -> tuple[Together, list[ServerProcess]]:
        with ExitStack() as stack:
            processes = [
                stack.enter_context(ServerProcess(each, self._cores)) for each in self._servers
            ]
            first = self._servers[0]
            first.ports = [each.port for each in self._servers]
            with closing(Wire(first.publish_port)) as wire:
                await_replicas(wire, len(processes))
            self._stack = stack.pop_all()
        return first, processes

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def _all(processes: list[ServerProcess]) -> Cpu:
    used = [process.cpu() for process in processes]
    return Cpu(sum(each.user for each in used), sum(each.kernel for each in used))


SCENARIOS: Final[Mapping[str, Callable[[Cores, Settings], Cases]]] = {
    "idle": idle,
    "users": users,
    "pushes": pushes,
    "publish": publish,
    "presence": crowd,
    "resume": returning,
    "slow": slow,
    "cross": cross,
    "cluster": cluster,
}

LABELS: Final[Mapping[tuple[str, str, str], tuple[str, int]]] = {
    ("idle", "idle", "percent_of_1000"): ("idle, % of a core for 1,000 clients with heartbeats", 2),
    ("pushes", "push", "mute_1"): ("push with reply, CPU µs, one at a time", 1),
    ("pushes", "push", "mute_64"): ("— 64 at a time", 1),
    ("pushes", "push", "echo_64"): ("— and its echo", 1),
    ("publish", "single ephemeral", "cpu_us"): ("`POST /v1/publish`, CPU µs a message", 1),
    ("publish", "single stored", "cpu_us"): ("— stored in memory", 1),
    ("publish", "batch ephemeral", "cpu_us"): ("`POST /v1/publish/batch`, CPU µs a message", 1),
    ("publish", "batch stored", "cpu_us"): ("— stored in memory", 1),
    ("users", "user", "cpu_us"): (
        f"message to one of {USERS:,} users, CPU µs, its request included",
        1,
    ),
    ("users", "user", "p99_ms"): ("— ms to the client at 1,000 a second, 99 %", 2),
    ("presence", "presence", "cpu_ms"): (
        f"presence, {MEMBERS:,} members at once, CPU ms a join",
        2,
    ),
    ("resume", "resume", "cpu_s"): (f"{RETURNING:,} clients resume on another replica, CPU s", 2),
    ("resume", "resume", "stall_ms"): ("— longest wait for a heartbeat, ms", 0),
    ("slow", "without", "p99_ms"): ("all read: ms to a client, 99 %", 1),
    ("slow", "with", "p99_ms"): (f"{SLOW} read nothing: ms to the others, 99 %", 1),
    ("cross", "cross", "p50_ms"): (
        "POST on one replica, client on another, 1,000 a second: ms, p50",
        2,
    ),
    ("cross", "cross", "p99_ms"): ("— p99", 2),
    **{
        ("cluster", f"{count}", figure): (
            f"{label}, {count} {'replica' if count == 1 else 'replicas'}",
            digits,
        )
        for figure, label, digits in (
            ("idle_percent", f"{EACH} clients on each, idle: % of a core for each replica", 2),
            ("cpu_us", "— CPU µs of a delivery", 2),
        )
        for count in REPLICAS
    },
}
"""How figures are shown, with digits behind the point: scenario, case and figure."""
