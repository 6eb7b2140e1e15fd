"""From the figures of the part ``cluster`` to its tables, and to what they come to in large clusters."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from bench.cluster.played import DIGESTS, HOLDERS, RESTARTS, STRANGERS, played
from bench.cluster.real import loaded, questions, rolling
from bench.options import Options
from bench.proc import Cores
from bench.scenarios import Figures

T = TypeVar("T")

USERS: Final = 10_000
"""Of one replica, in what is calculated."""

LARGE: Final = ((100, 1_000_000), (1_000, 10_000_000))
"""Clusters that are calculated: replicas, users."""

HOURLY_SECONDS: Final = 3600
ROOM: Final = 50
"""Members of a room, in what is calculated."""

DIGEST_SECONDS: Final = 60
"""Time between two digests of a key that does not change."""

VISITS: Final = 2
"""How often a user comes and goes in an hour, in what is calculated."""


@dataclass(frozen=True)
class Amounts:
    """How much is measured.

    Attributes:
        sizes: Numbers of real replicas.
        questions: How many are asked of each kind.
        users: Of the replica that has many.
        moving: Users of a rolling restart.
        peers: Numbers of replicas that are played.
        meeting: Users of the real one among them.
        seconds: How long a state is watched.
        settle: How long it has to come about; in full what follows a change is said twice meanwhile.
    """

    sizes: tuple[int, ...]
    questions: int
    users: int
    moving: int
    peers: tuple[int, ...]
    meeting: int
    seconds: float
    settle: float


FULL: Final = Amounts((1, 2, 4, 8), 300, USERS, 2000, (100, 1000), 2000, 15.0, 12.0)
QUICK: Final = Amounts((1, 2, 3), 50, 500, 100, (20, 100), 100, 2.0, 2.0)


def run(cores: Cores, options: Options) -> str:
    """Measure; returns the tables."""
    amounts = QUICK if options.quick else FULL
    sizes, settle = amounts.sizes, amounts.settle
    asked = _timed("questions", lambda: questions(cores, sizes, amounts.questions, settle))
    many = _timed("users", lambda: loaded(cores, amounts.users, 2 * amounts.seconds, settle))
    moved = _timed("restarts", lambda: rolling(cores, sizes[1:], amounts.moving, settle))
    among = _timed(
        "peers",
        lambda: played(cores, amounts.peers, amounts.meeting, amounts.seconds, settle),
    )
    return "\n".join(
        (
            _large(asked, many, among, amounts),
            _asked(asked, amounts),
            _many(many, amounts),
            _moved(moved, amounts),
            _among(among, amounts),
        )
    )


def _timed(name: str, measure: Callable[[], T]) -> T:
    began = time.monotonic()
    found = measure()
    print(f"{name}  {time.monotonic() - began:.0f} s  {found}", file=sys.stderr)
    return found


def _large(
    asked: Mapping[int, Figures],
    many: Figures,
    among: Figures,
    amounts: Amounts,
) -> str:
    """What was measured, and what it comes to in large clusters."""
    share = USERS / amounts.users
    rows: list[tuple[str, str, list[str]]] = []

    def row(what: str, measured: str, large: Callable[[int, int], str]) -> None:
        rows.append((what, measured, [large(*each) for each in LARGE]))

    for name, what in (("nowhere", "who is nowhere"), ("two", "on two replicas")):
        messages, cpu = (_line(asked, f"{name}_{figure}") for figure in ("messages", "us"))
        size = max(asked)
        row(
            f"a question about a user {what}: messages, CPU of the asker",
            f"R = {size}: {messages(size):.1f}, {cpu(size) / 1e3:.2f} ms",
            partial(_question, messages, cpu),
        )
    newcomer = max(0.0, many["newcomer_messages"]) * share
    row(
        "a new, empty replica: messages of all others, sent and received",
        f"{amounts.users:,} users: {many['newcomer_messages']:,.0f}, {many['newcomer_cpu']:.2f} s of CPU",
        lambda r, _: f"{newcomer * (r - 1):,.0f}",
    )
    row(
        "a lost connection to the bus: messages of the replica",
        f"{amounts.users:,} users: {many['reconnect_messages']:,.0f}, "
        f"at most {many['reconnect_most']:,.0f}/s",
        lambda *_: f"{max(0.0, many['reconnect_messages']) * share:,.0f}",
    )

    def beats(replicas: int, _: int) -> str:
        heard, cost = _beats(among, amounts, replicas)
        return f"{cost * heard:.2f} %; {heard * replicas:,.0f}/s"

    most = max(amounts.peers)
    heard, cost = _beats(among, amounts, most)
    row(
        "beats: CPU of each replica; deliveries a second of all",
        f"{most:,} peers: {heard:,.0f}/s, {cost * heard:.2f} % of a core",
        beats,
    )
    digest = among["digest_us"]
    row(
        f"digests of shared rooms: {ROOM} members each, every {DIGEST_SECONDS} s from each replica",
        f"one: {digest:.0f} µs",
        lambda r, _: f"{_digests(r):,.0f}/s, {digest * _digests(r) / 1e4:.1f} % of a core",
    )
    write = many["leave_nats_cpu"]
    row(
        "`last_seen_at`: writes a second; CPU of the stream's leader; on its disk",
        f"one user: {write * 1e6:.0f} µs, {many['kept_bytes']:.0f} bytes",
        lambda _, users: (
            f"{_writes(users):,.0f}/s; {100 * write * _writes(users):.0f} %; "
            f"{many['kept_bytes'] * users / 1e9:.1f} GB"
        ),
    )
    row(
        "idle users: CPU of each replica; messages a second of all",
        f"{amounts.users:,}: {many['idle_cpu']:.2f} % of a core, {many['idle_messages']:,.0f}/s",
        lambda r, _: (
            f"{many['idle_cpu'] * share:.2f} %; {many['idle_messages'] * share * r:,.0f}/s"
        ),
    )
    heading = "".join(f" | at {r:,} replicas, {users // 1_000_000} M users" for r, users in LARGE)
    lines = [f"| what | measured{heading} |\n|---|--:|--:|--:|\n"]
    lines += [f"| {what} | {measured} | {' | '.join(large)} |\n" for what, measured, large in rows]
    return (
        "".join(lines)
        + "\nThe last two columns are calculated, in straight lines from what was measured, with "
        f"{USERS:,} users on each replica, who come and go {VISITS} times an hour.\n"
    )


def _question(
    messages: Callable[[int], float], cpu: Callable[[int], float], replicas: int, _: int
) -> str:
    return f"{messages(replicas):,.0f}, {cpu(replicas) / 1e3:,.1f} ms"


def _line(asked: Mapping[int, Figures], name: str) -> Callable[[int], float]:
    """The straight line through the smallest cluster with a bystander and the largest that was measured."""
    few, many = min(size for size in asked if size > 2), max(asked)
    low, high = asked[few][name], asked[many][name]
    slope = (high - low) / (many - few) if many > few else 0.0
    return lambda size: high + slope * (size - many)


def _beats(among: Figures, amounts: Amounts, replicas: int) -> tuple[float, float]:
    """Beats a second that a replica hears, and % of a core for each, by the nearest number of peers."""
    peers = min(amounts.peers, key=lambda each: abs(each - replicas))
    beats = among[f"peers_{peers}_beats"]
    cost = (among[f"peers_{peers}_cpu"] - among["alone_cpu"]) / beats if beats else 0.0
    return beats * replicas / peers, cost


def _digests(replicas: int) -> float:
    """How many a replica gets each second, whose users are each in a room, if chance spreads its members."""
    holders = replicas * (1 - (1 - 1 / replicas) ** ROOM)
    return USERS * holders / ROOM * (holders - 1) / DIGEST_SECONDS


def _writes(users: int) -> float:
    return users * (1 + VISITS) / HOURLY_SECONDS


def _asked(asked: Mapping[int, Figures], amounts: Amounts) -> str:
    text = (
        "| replicas | about a user | messages | ms, median | CPU µs of the asker "
        "| messages of a bystander | its CPU µs |\n|--:|---|--:|--:|--:|--:|--:|\n"
    )
    for size, figures in asked.items():
        for name, what in (("nowhere", "nowhere"), ("two", f"on {min(size, 2)}")):
            aside = (
                f"{figures[f'{name}_bystander']:.1f} | {figures[f'{name}_bystander_us']:.0f}"
                if size > 2
                else "- | -"
            )
            text += (
                f"| {size} | {what} | {figures[f'{name}_messages']:.1f} | {figures[f'{name}_ms']:.2f} "
                f"| {figures[f'{name}_us']:.0f} | {aside} |\n"
            )
    return (
        f"{text}\n{amounts.questions} questions (`GET /v1/users/{{user}}/sessions`) of each kind, one after "
        "another; what all send is counted, less what they send anyhow. A bystander has no session of the "
        "user, and neither has the asker where there are more than two replicas.\n"
    )


def _many(many: Figures, amounts: Amounts) -> str:
    rows = "".join(
        f"| {what} | {many[f'{name}_messages']:,.0f} | {many[f'{name}_most']:,.0f} "
        f"| {many[f'{name}_cpu']:.2f} | {many[f'{name}_nats_cpu']:.2f} |\n"
        for name, what in (
            ("newcomer", "an empty replica comes"),
            ("empty_reconnect", "another, empty one loses its connection to the bus"),
            ("reconnect", "this one loses it"),
        )
    )
    return (
        f"| beside a replica with {amounts.users:,} users | its messages | a second, at most | its CPU s "
        f"| nats-server CPU s |\n|---|--:|--:|--:|--:|\n{rows}"
        f"\nWithin {amounts.settle:.0f} s, beyond what an idle time takes; that is "
        f"{many['idle_cpu']:.2f} % of a core and {many['idle_nats_cpu']:.2f} % for nats-server, "
        f"{many['idle_messages']:,.0f} messages and {many['idle_bytes']:,.0f} bytes a second. "
        f"A user who leaves takes {many['leave_cpu'] * 1e6:.0f} µs of the replica, "
        f"{many['leave_nats_cpu'] * 1e6:.0f} µs of nats-server and {many['leave_messages']:.1f} messages.\n"
    )


def _moved(moved: Mapping[int, Figures], amounts: Amounts) -> str:
    rows = "".join(
        f"| {size} | {figures['messages']:,.0f} | {figures['nats_cpu']:.2f} |\n"
        for size, figures in moved.items()
    )
    return (
        "| replicas restarted, one after the other | messages of each, sent and received "
        f"| nats-server CPU s |\n|--:|--:|--:|\n{rows}"
        f"\n{amounts.moving:,} users on all of them together, in shared rooms of 20.\n"
    )


def _among(among: Figures, amounts: Amounts) -> str:
    peers = max(amounts.peers)
    rooms = amounts.meeting // 20
    rows = "".join(
        f"| {what} | {among[f'{name}_cpu']:.2f} | {among[f'{name}_nats_cpu']:.2f} "
        f"| {among[f'{name}_sent']:,.0f} | {among[f'{name}_received']:,.0f} |\n"
        for name, what in (
            ("alone", "alone"),
            *((f"peers_{count}", f"{count:,} peers") for count in amounts.peers),
            ("sharing", f"{peers:,} peers, each room on {min(HOLDERS, peers)} of them"),
            ("digests", f"the same, and {DIGESTS:,.0f} digests of shared rooms a second"),
            ("strangers", f"the same, and {STRANGERS:,.0f} changes a second on keys of others"),
            ("restarts", f"the same, and {RESTARTS:,.0f} restarts of peers a second"),
            (
                "reconnect",
                f"the same, and within {among['reconnect_seconds']:.0f} s of its connection's loss",
            ),
        )
    )
    return (
        "| one replica | % of a core | nats-server | messages a second sent | received |\n"
        f"|---|--:|--:|--:|--:|\n{rows}"
        f"\n{amounts.meeting:,} users in {rooms:,} rooms with presence on one real replica. The peers are "
        "played: one process sends their genuine beats, digests, hellos and states, and that is in "
        "nats-server's CPU. The keys of others are drawn from 10 million; no message on them arrives.\n"
    )
