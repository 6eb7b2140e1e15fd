"""``python -m bench.performance``: Gateway beside its rivals; makes docs/performance.md."""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

from bench.builds import WORKING_TREE
from bench.performance import page
from bench.performance.alone import SCENARIOS as ALONE
from bench.performance.beside import SCENARIOS as BESIDE
from bench.performance.beside import Cases
from bench.performance.machine import machine, versions
from bench.performance.results import Results, Run
from bench.performance.settings import FULL, QUICK, Settings
from bench.proc import Cores
from bench.servers import Server
from bench.servers.gateway import EquippedGateway
from bench.servers.phoenix import Phoenix, Place
from bench.servers.rivals import (
    ENVIRONMENT,
    INSTALL,
    Asgi,
    BareAiohttp,
    Centrifugo,
    Floor,
    SocketIo,
    Ws,
)
from bench.wire import LoadError

SERVERS: Final[dict[str, Callable[[], Server]]] = {
    "floor": Floor,
    "gateway": lambda: EquippedGateway(WORKING_TREE),
    "centrifugo": Centrifugo,
    "ws": Ws,
    "socket.io": SocketIo,
    "aiohttp": lambda: BareAiohttp("send_str"),
    "starlette": lambda: Asgi("starlette_uvicorn"),
    "channels": lambda: Asgi("django_channels"),
}
"""By the name in the tables; the first is what ratios are taken to."""

FEW: Final = {"sizes": ("floor", "gateway"), "topics": ("gateway", "centrifugo")}
"""Scenarios that only some servers go through: those that have topics, or are wanted for a ratio."""


def main() -> None:
    """Measure, write what was found, and draw the page of it."""
    arguments = _arguments()
    if arguments.draw:
        results = Results.of(json.loads(arguments.results.read_text()))
    else:
        results = _measure(arguments)
        arguments.results.parent.mkdir(parents=True, exist_ok=True)
        arguments.results.write_text(json.dumps(results.document(), indent=1) + "\n")
    for name, text in page.blocks(results).items():
        print(f"{name}\n\n{text}", flush=True)
        if arguments.write:
            page.write(name, text)
    if arguments.write:
        _draw(arguments.results)


def _measure(arguments: argparse.Namespace) -> Results:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the servers, too
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each client has a descriptor
    settings = _settings(arguments).within(most)
    found = machine()  # before it does anything
    cores = Cores.choose()
    os.sched_setaffinity(0, {cores.load})
    WORKING_TREE.prepare()
    servers = {name: SERVERS[name] for name in SERVERS if name in arguments.servers}
    if arguments.phoenix:
        place = Place(arguments.phoenix[0], arguments.phoenix[1], int(arguments.phoenix[2]))
        servers["phoenix"] = partial(Phoenix, place)
    skipped = {name: todo for name, make in servers.items() if (todo := make().missing())}
    if not arguments.phoenix:
        skipped["phoenix"] = "start it, and say where: --phoenix SOCKET PUBLISH PID"
    for name, todo in skipped.items():
        print(f"skipped: {name} ({todo})", file=sys.stderr)
        servers.pop(name, None)
    results = Results(
        command=_command(),
        machine=found,
        versions=versions(list(servers)),
        settings=asdict(settings),
        skipped=skipped,
    )
    started = time.monotonic()
    for number in range(settings.rounds):
        shift = number % len(servers)  # so that none always comes first
        names = [*servers][shift:] + [*servers][:shift]
        for scenario in arguments.only:
            if scenario in BESIDE:
                for name in names:
                    if name in FEW.get(scenario, names):
                        _run(
                            results,
                            Run(scenario, name, number),
                            partial(BESIDE[scenario], servers[name](), cores, settings),
                        )
            elif "gateway" in servers:
                _run(
                    results,
                    Run(scenario, "gateway", number),
                    partial(ALONE[scenario], cores, settings),
                )
    results.seconds = time.monotonic() - started
    return results


def _run(results: Results, run: Run, measure: Callable[[], Cases]) -> None:
    """One scenario of one server in one round; what fails is said, and the others are measured."""
    if (run.scenario, run.server) in results.failed:
        return
    started = time.monotonic()
    try:
        run.cases = measure()
    except (LoadError, OSError, RuntimeError) as error:
        results.failed[run.scenario, run.server] = str(error).strip().splitlines()[-1][:200]
        print(
            f"{run.scenario} {run.server}: {error}",
            *getattr(error, "__notes__", ()),
            file=sys.stderr,
        )
        return
    results.runs.append(run)
    took = time.monotonic() - started
    print(f"round {run.round + 1}  {run.scenario}  {run.server}  {took:.0f} s", file=sys.stderr)
    for case, figures in run.cases.items():
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"  {case}: {shown}", file=sys.stderr, flush=True)


def _draw(path: Path) -> None:
    """The pictures, in the environment that has what draws them."""
    python = ENVIRONMENT / "bin/python"
    if not python.exists():
        print(f"no pictures are drawn ({INSTALL})", file=sys.stderr)
        return
    subprocess.run([python, Path(__file__).with_name("plots.py"), path, page.PICTURES], check=True)


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = QUICK if arguments.quick else FULL
    given = {
        name: value
        for name in ("rounds", "subscribers", "rates", "seconds", "connects", "sizes", "topics")
        if (value := getattr(arguments, name)) is not None
    }
    return replace(settings, **given)


def _command() -> str:
    return " ".join(["python -m bench.performance", *sys.argv[1:]])


def _arguments() -> argparse.Namespace:
    scenarios = [*BESIDE, *ALONE]
    parser = argparse.ArgumentParser(prog="python -m bench.performance", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few clients, one round: does it work")
    parser.add_argument("--only", type=_names(scenarios), default=scenarios, metavar="NAMES",
                        help=f"of {', '.join(scenarios)}, with commas")  # fmt: skip
    parser.add_argument("--servers", type=_names([*SERVERS]), default=[*SERVERS], metavar="NAMES",
                        help=f"of {', '.join(SERVERS)}, with commas")  # fmt: skip
    parser.add_argument("--phoenix", nargs=3, metavar=("SOCKET", "PUBLISH", "PID"),
                        help="a server of Phoenix Channels that runs: URLs of its WebSocket and of what "
                             "takes a POST of topic, event and payload, and its process")  # fmt: skip
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--subscribers", type=int, help="of fanout")
    parser.add_argument(
        "--rates", type=_numbers(float), help="messages a second of fanout, with commas"
    )
    parser.add_argument("--seconds", type=float, help="for each rate")
    parser.add_argument("--connects", type=int, help="clients of connect")
    parser.add_argument("--sizes", type=_numbers(int), help="subscribers of sizes, with commas")
    parser.add_argument("--topics", type=int, help="topics of topics")
    parser.add_argument("--results", type=Path, default=page.RESULTS, help="the JSON file")
    parser.add_argument("--write", action="store_true", help="put tables and pictures into docs")
    parser.add_argument(
        "--draw", action="store_true", help="of results that are there, without measuring"
    )
    return parser.parse_args()


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = text.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
        return found

    return names


def _numbers(kind: Callable[[str], float]) -> Callable[[str], list[float]]:
    return lambda text: [kind(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
