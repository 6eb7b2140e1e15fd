"""One real replica among replicas that are played."""

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.cluster.fleet import Fleet, seconds_for
from bench.cluster.peers import Peers
from bench.cluster.replicas import ROOM_MEMBERS, Watch, replicas
from bench.proc import Cores
from bench.remote import Remote
from bench.scenarios import Figures

HOLDERS: Final = 48
"""Replicas that a room of 50 is on, of very many."""

DIGESTS: Final = 400.0
STRANGERS: Final = 2000.0
RESTARTS: Final = 10.0


def played(
    cores: Cores, counts: tuple[int, ...], users: int, seconds: float, settle: float
) -> Figures:
    """What the real one spends on others being there, on what it shares with them, and on their restarts.

    Args:
        seconds: How long each is watched.
        settle: How long it has to become quiet.
    """
    with (
        replicas(cores, 1) as (several, nats),
        Remote(partial(Fleet, several.servers)) as fleet,
        Remote(partial(Peers, nats.url)) as peers,
    ):
        fleet.call(seconds_for(users), Fleet.come, users)
        time.sleep(settle)

        def spent(
            name: str,
            digests: float = 0,
            strangers: float = 0,
            restarts: float = 0,
            begin: Callable[[], None] = lambda: None,
        ) -> Figures:
            watch = several.watch()
            begin()
            beats = peers.call(seconds + 60, Peers.spend, seconds, digests, strangers, restarts)
            return _figures(name, watch, beats)

        figures = spent("alone")
        for count in counts:
            peers.call(60, Peers.meet, count)
            peers.call(60, Peers.spend, settle)
            figures |= spent(f"peers_{count}")
        topics = [several.servers[0].topic(number) for number in range(0, users, ROOM_MEMBERS)]
        peers.call(120, Peers.share, topics, min(HOLDERS, counts[-1]))
        peers.call(60, Peers.spend, settle)
        figures |= spent("sharing")
        figures |= spent("digests", digests=DIGESTS)
        beyond = (figures["digests_cpu"] - figures["sharing_cpu"]) / 100
        each = beyond * figures["digests_seconds"] / (DIGESTS * seconds)
        figures["digest_us"] = max(each, 0.0) * 1e6
        figures |= spent("strangers", strangers=STRANGERS)
        figures |= spent("restarts", restarts=RESTARTS)
        peers.call(60, Peers.spend, settle)
        return figures | spent("reconnect", begin=lambda: nats.kick(several.servers[0].name))


def _figures(name: str, watch: Watch, beats: int) -> Figures:
    seconds, traffic = watch.seconds, watch.traffic
    return {
        f"{name}_cpu": 100 * watch.cpu / seconds,
        f"{name}_nats_cpu": 100 * watch.nats_cpu / seconds,
        f"{name}_sent": traffic.sent / seconds,
        f"{name}_received": traffic.received / seconds,
        f"{name}_beats": beats / seconds,
        f"{name}_seconds": seconds,
    }
