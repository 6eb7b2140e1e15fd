"""The faults: what each does to a lab, one function each. When it returns, all it took away is back."""

import asyncio
import contextlib
import resource
import signal
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import nats.errors
import psutil

from tests.faults.lab import Lab, users
from tests.support.nats import NatsServer
from tests.support.routes import Way

STREAM = "GATEWAY"
STORED = "gateway.store.>"
LIVE = "gateway.topic.>"

FILLER_BYTES = 1_000_000


class Fault(NamedTuple):
    """Something that goes wrong.

    Attributes:
        name: What, for an operator.
        make: Does it and, where it lasts, undoes it.
        short: Whether ``make test`` tries it.
        together: Whether it needs three nats-servers.
        told: Reasons with which clients may be told that they missed something.
    """

    name: str
    make: Callable[[Lab], Awaitable[None]]
    short: bool = False
    together: bool = False
    told: frozenset[str] = frozenset()


async def _replica_killed(lab: Lab) -> None:
    lab.replicas[0].kill()
    await asyncio.sleep(2)
    await lab.restart(0)


async def _all_killed(lab: Lab) -> None:
    for replica in lab.replicas:
        replica.kill()
    await lab.restart(*range(len(lab.replicas)))


def _replica_frozen(seconds: float) -> Callable[[Lab], Awaitable[None]]:
    async def make(lab: Lab) -> None:
        lab.replicas[0].signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        lab.replicas[0].signal(signal.SIGCONT)

    return make


async def _drain(lab: Lab, number: int) -> None:
    lab.replicas[number].terminate()
    assert await asyncio.to_thread(lab.replicas[number].wait) == 0, "a drain ends with 0"
    await lab.restart(number)


async def _drained(lab: Lab) -> None:
    await _drain(lab, 0)


async def _rolled_out(lab: Lab) -> None:
    for number in range(len(lab.replicas)):
        await _drain(lab, number)
        await lab.ready()


async def _killed_amid_a_drain(lab: Lab) -> None:
    lab.replicas[0].terminate()
    await asyncio.sleep(0.5)
    lab.replicas[0].kill()
    await lab.restart(0)


async def _twin(lab: Lab) -> None:
    """The older of two processes of one name must end."""
    twin = lab.replica("twin", 0)
    await asyncio.to_thread(twin.start, ready=False)
    assert await asyncio.to_thread(lab.replicas[0].wait) == 1, (
        "it says that it did not end in order"
    )
    twin.kill()
    await lab.restart(0)


async def _descriptors(lab: Lab) -> None:
    """None is left, for five seconds, and its clients have to come again."""
    pid = lab.replicas[0].pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = psutil.Process(pid).num_fds()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
    for _ in range(5):
        lab.links.reset(lab.balancer)
        await asyncio.sleep(1)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def _jumps(number: signal.Signals, back: signal.Signals) -> Callable[[Lab], Awaitable[None]]:
    async def make(lab: Lab) -> None:
        lab.replicas[0].signal(number)
        lab.links.reset(lab.balancer)
        await asyncio.sleep(5)
        lab.replicas[0].signal(back)

    return make


async def _clients_cut(lab: Lab) -> None:
    for _ in range(3):
        lab.links.reset(lab.balancer)
        await asyncio.sleep(0.3)


def _clients_deaf(way: Way) -> Callable[[Lab], Awaitable[None]]:
    async def make(lab: Lab) -> None:
        lab.links.deafen(lab.balancer, way)
        await asyncio.sleep(5)
        lab.links.heal(lab.balancer)

    return make


async def _clients_delayed(lab: Lab) -> None:
    lab.links.delay(lab.balancer, 0.3)
    await asyncio.sleep(5)
    lab.links.heal(lab.balancer)


async def _nats_killed(lab: Lab) -> None:
    lab.nats.kill()
    await asyncio.sleep(3)
    await asyncio.to_thread(lab.nats.start)


async def _nats_restarted(lab: Lab) -> None:
    await asyncio.to_thread(lab.nats.stop)
    await asyncio.to_thread(lab.nats.start)


async def _nats_frozen(lab: Lab) -> None:
    await asyncio.to_thread(lab.nats.pause)
    await asyncio.sleep(10)
    lab.nats.resume()


async def _nats_emptied(lab: Lab) -> None:
    lab.nats.kill()
    lab.nats.forget()
    await asyncio.to_thread(lab.nats.start)


async def _way_cut(lab: Lab) -> None:
    lab.links.cut(lab.ways[0])
    await asyncio.sleep(5)
    lab.links.heal(lab.ways[0])


async def _way_flaps(lab: Lab) -> None:
    for _ in range(10):
        lab.links.reset(lab.ways[0])
        await asyncio.sleep(0.5)


def _way_deaf(way: Way) -> Callable[[Lab], Awaitable[None]]:
    async def make(lab: Lab) -> None:
        lab.links.deafen(lab.ways[0], way)
        await asyncio.sleep(12)
        lab.links.heal(lab.ways[0])

    return make


async def _way_delayed(lab: Lab) -> None:
    lab.links.delay(lab.ways[0], 0.5)
    await asyncio.sleep(5)
    lab.links.heal(lab.ways[0])


def _denied(what: str, subject: str) -> Callable[[Lab], Awaitable[None]]:
    async def make(lab: Lab) -> None:
        lab.nats.reload(users(f'{what}: {{ deny: ["{subject}"] }}'))
        await asyncio.sleep(6)
        lab.nats.reload(users())

    return make


async def _locked_out(lab: Lab) -> None:
    """Another password for a while: all connections are closed, and none is let in."""
    lab.nats.reload(users().replace("password: gateway", "password: changed"))
    await asyncio.sleep(5)
    lab.nats.reload(users())


async def _store_full(lab: Lab) -> None:
    client = await lab.operator()
    stream = client.jetstream()
    await stream.add_stream(name="FILL", subjects=["fill"])
    with contextlib.suppress(nats.errors.Error):
        while True:
            await stream.publish("fill", b"x" * FILLER_BYTES)
    while True:
        try:
            for _ in range(1000):
                await stream.publish("fill", b"x" * 1000)
        except nats.errors.Error:
            break
    await asyncio.sleep(5)
    await stream.delete_stream("FILL")
    await client.close()


async def _stream_deleted(lab: Lab) -> None:
    await lab.ask(f"STREAM.DELETE.{STREAM}")


async def _stream_purged(lab: Lab) -> None:
    """While everybody is away, so that whoever comes back asks for what is gone."""
    lab.links.cut(lab.balancer)
    await asyncio.sleep(2)
    await lab.ask(f"STREAM.PURGE.{STREAM}")
    lab.links.heal(lab.balancer)


async def _edited(lab: Lab, **changes: object) -> None:
    config = (await lab.ask(f"STREAM.INFO.{STREAM}"))["config"]
    for name, value in changes.items():
        config.pop(name, None)
        if value is not None:
            config[name] = value
    await lab.ask(f"STREAM.UPDATE.{STREAM}", config)


async def _republish_removed(lab: Lab) -> None:
    await _edited(lab, republish=None)


async def _shortened(lab: Lab) -> None:
    """Only five messages are kept, while everybody is away."""
    lab.links.cut(lab.balancer)
    await _edited(lab, max_msgs=5)
    await asyncio.sleep(2)
    lab.links.heal(lab.balancer)


async def _leader(lab: Lab) -> int:
    for _ in range(100):
        with contextlib.suppress(nats.errors.Error, OSError, KeyError):
            info = await lab.ask(f"STREAM.INFO.{STREAM}")
            return int(info["cluster"]["leader"].removeprefix("n"))
        await asyncio.sleep(0.2)
    raise AssertionError("nobody leads")


async def _leader_steps_down(lab: Lab) -> None:
    for _ in range(3):
        await lab.ask(f"STREAM.LEADER.STEPDOWN.{STREAM}")
        await asyncio.sleep(1)


def _server(
    offset: int, fail: Callable[[NatsServer], None], mend: Callable[[NatsServer], None]
) -> Callable[[Lab], Awaitable[None]]:
    """Of the one that leads, or so many further on, for six seconds."""

    async def make(lab: Lab) -> None:
        assert lab.cluster is not None
        server = lab.cluster.servers[(await _leader(lab) + offset) % 3]
        await asyncio.to_thread(fail, server)
        await asyncio.sleep(6)
        await asyncio.to_thread(mend, server)

    return make


async def _minority(lab: Lab) -> None:
    assert lab.cluster is not None
    lost = lab.cluster.servers[1:]
    for server in lost:
        server.kill()
    await asyncio.sleep(6)
    for server in lost:
        await asyncio.to_thread(server.start)


async def _route_cut(lab: Lab) -> None:
    assert lab.cluster is not None
    leader = await _leader(lab)
    lab.cluster.cut(leader, (leader + 1) % 3)
    await asyncio.sleep(6)
    lab.cluster.heal(leader, (leader + 1) % 3)


ANEW = frozenset({"epoch_changed"})
GONE = frozenset({"too_many", "expired", "epoch_changed"})

FAULTS = (
    Fault("a replica is killed, and started 2 s later", _replica_killed, short=True),
    Fault("all replicas are killed at once, and started", _all_killed),
    Fault("a replica is frozen for 4 s", _replica_frozen(4), short=True),
    Fault("a replica is frozen for 15 s: the others take it for dead", _replica_frozen(15)),
    Fault("a replica drains amid load, and is started", _drained),
    Fault("a rolling restart of all replicas", _rolled_out),
    Fault("a replica is killed amid its drain, and started", _killed_amid_a_drain),
    Fault("a second process takes a replica's name; both end, one is started", _twin),
    Fault("a replica has no descriptor left for 5 s, and clients come again", _descriptors),
    Fault(
        "a replica's clock is 10 minutes ahead for 5 s",
        _jumps(signal.SIGUSR1, signal.SIGUSR2),
    ),
    Fault(
        "a replica's clock is 10 minutes behind for 5 s",
        _jumps(signal.SIGUSR2, signal.SIGUSR1),
    ),
    Fault("all clients' connections are reset, three times", _clients_cut, short=True),
    Fault("nothing from clients arrives for 5 s", _clients_deaf(Way.THERE)),
    Fault("nothing arrives at clients for 5 s", _clients_deaf(Way.BACK)),
    Fault("clients are 300 ms away for 5 s", _clients_delayed),
    Fault("nats-server is killed, and started 3 s later", _nats_killed, short=True),
    Fault("nats-server is restarted in order", _nats_restarted),
    Fault("nats-server is frozen for 10 s", _nats_frozen),
    Fault("a replica is cut off the bus for 5 s", _way_cut, short=True),
    Fault("a replica's way to the bus breaks ten times in 5 s", _way_flaps),
    Fault("nothing from a replica reaches the bus for 12 s", _way_deaf(Way.THERE)),
    Fault("nothing from the bus reaches a replica for 12 s", _way_deaf(Way.BACK)),
    Fault("the bus is half a second away from a replica for 5 s", _way_delayed),
    Fault("the right to publish to the store is taken for 6 s", _denied("publish", STORED)),
    Fault("the right to publish anything is taken for 6 s", _denied("publish", ">")),
    Fault("the right to subscribe topics is taken for 6 s", _denied("subscribe", LIVE)),
    Fault("the gateway's password is another for 5 s", _locked_out),
    Fault("JetStream's storage is full for 5 s", _store_full),
    Fault("the stream is deleted", _stream_deleted, short=True, told=ANEW),
    Fault("nats-server is killed and its store is lost", _nats_emptied, told=ANEW),
    Fault("the stream is purged while clients are away for 2 s", _stream_purged, told=GONE),
    Fault(
        "an operator lets the stream keep five messages while clients are away for 2 s",
        _shortened,
        told=GONE,
    ),
    Fault("an operator removes the stream's republishing", _republish_removed),
    Fault(
        "of three servers, the stream's leader steps down, three times",
        _leader_steps_down,
        together=True,
    ),
    Fault(
        "of three servers, the stream's leader is killed, and started 6 s later",
        _server(0, NatsServer.kill, NatsServer.start),
        together=True,
    ),
    Fault(
        "of three servers, a follower is killed, and started 6 s later",
        _server(1, NatsServer.kill, NatsServer.start),
        together=True,
    ),
    Fault(
        "of three servers, the stream's leader is frozen for 6 s",
        _server(0, NatsServer.pause, NatsServer.resume),
        together=True,
    ),
    Fault(
        "of three servers, two are killed, and started 6 s later",
        _minority,
        together=True,
    ),
    Fault(
        "of three servers, the leader and a follower are cut apart for 6 s",
        _route_cut,
        together=True,
    ),
)
