"""The scenario ``revoke``: a user's tokens are called back, with two replicas on a real nats-server."""

import time
from contextlib import closing
from statistics import median
from typing import Final

from bench.idle import await_replicas, rounds_of, spread
from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.base import post
from bench.servers.gateway import API_KEY, Gateway
from bench.wire import CLOSE, LoadError, Wire, upgrade

USERS: Final = 200
WARM_UP: Final = 10
FORBIDDEN: Final = b"HTTP/1.1 403"


def run(cores: Cores, options: Options) -> str:
    """Measure how long a user stays whose tokens are revoked; returns the table."""
    users = 20 if options.quick else USERS
    rounds = rounds_of(options, "revoke", lambda: revoke(cores, users))
    return (
        "| from the request until a user's sockets are closed | ms | lowest | highest |\n"
        "|---|--:|--:|--:|\n"
        f"| median | {spread(rounds, 'median_ms', '.2f')} |\n"
        f"| worst | {spread(rounds, 'worst_ms', '.2f')} |\n"
        f"\n{users} users, one after another, each with a socket on both of two replicas; medians of"
        f" {len(rounds)} {'round' if len(rounds) == 1 else 'rounds'}, and their lowest and highest.\n"
    )


def revoke(cores: Cores, users: int) -> Figures:
    """``median_ms`` and ``worst_ms``: until the sockets on both replicas are closed; then both refuse it."""
    with Nats(cores.load) as nats:
        asked, other = Gateway(nats.url), Gateway(nats.url)
        with ServerProcess(asked, cores), ServerProcess(other, cores):
            wire = Wire(asked.publish_port)
            with closing(wire):
                await_replicas(wire, 2)
                both = (asked, other)
                times = [_revoke(wire, number, both) for number in range(WARM_UP + users)]
    return {"median_ms": median(times[WARM_UP:]), "worst_ms": max(times[WARM_UP:])}


def _revoke(wire: Wire, number: int, replicas: tuple[Gateway, Gateway]) -> float:
    """Call back the tokens of one user, who must be gone then; returns how long it took, in ms."""
    path = replicas[0].path(number)
    sockets = [Wire(replica.port) for replica in replicas]
    for replica, client in zip(replicas, sockets, strict=True):
        client.upgrade(path)
        client.send(replica.joining(number))
        client.receive()
    body = b'{"user":"%b"}' % replicas[0].user(number).encode()
    request = post("/v1/tokens/revoke", body, b"Authorization: Bearer %b\r\n" % API_KEY.encode())
    started = time.perf_counter()
    wire.ask(request)
    for client in sockets:
        if client.frame()[0] != CLOSE:
            raise LoadError("a message to a user whose tokens were revoked")
    took = (time.perf_counter() - started) * 1e3
    wire.answered()
    for replica, client in zip(replicas, sockets, strict=True):
        client.close()
        with closing(Wire(replica.port)) as again:
            again.ask(upgrade(path))
            if not again.head().startswith(FORBIDDEN):
                raise LoadError("a revoked token was let in")
    return took
