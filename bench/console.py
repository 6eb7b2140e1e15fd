"""The scenario ``console``: what the console's open pages cost a replica with many busy clients."""

import contextlib
import select
import sys
import threading
import time
from statistics import median
from typing import Final
from urllib.parse import urlencode

from bench.load import Load
from bench.nats import Nats
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.servers.gateway import API_KEY, Gateway
from bench.wire import LoadError, Wire, check_upgraded

CLIENTS: Final = 5000
TABS: Final = 20
PER_SECOND: Final = 10
WINDOW_SECONDS: Final = 10
VIEWS: Final = 200
"""Pages that are loaded, to see what that sends to the bus."""

FEW: Final = 5
"""Clients while views are counted: of each, replicas tell each other now and then that nothing changed."""

QUIET_SECONDS: Final = 12.0
"""After which replicas have said what a join makes them say."""

ROUNDS: Final = 3
SETTLE_SECONDS: Final = 2.0

PATHS: Final = ("", "/topics", "/replica")
"""Pages of the tabs, in turns; their live topics below."""

VIEWED: Final = (*PATHS, "/users", "/users/1", "/topics/room%3Abench", "/keys")

TOPICS: Final = ("console:overview", "console:topics", "console:replica")


class Tabs:
    """Open pages of one operator: each is loaded once, and its socket is read by a thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._origin = f"http://127.0.0.1:{port}"
        self._host = f"Host: 127.0.0.1:{port}\r\nOrigin: {self._origin}\r\n"
        self._cookie = self._sign_in()
        self._open: list[Wire] = []
        self._reader: threading.Thread | None = None
        self._stop = threading.Event()
        self.received = 0

    def view(self, path: str) -> None:
        """Load a page."""
        with contextlib.closing(Wire(self._port)) as wire:
            wire.ask(f"GET /console{path} HTTP/1.1\r\n{self._host}{self._cookie}\r\n".encode())
            wire.answered()

    def open(self, count: int) -> None:
        """Open so many pages."""
        for number in range(count):
            self.view(PATHS[number % len(PATHS)])
            wire = Wire(self._port)
            wire.ask(
                f"GET /console/socket/websocket?vsn=2.0.0 HTTP/1.1\r\n{self._host}{self._cookie}"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            check_upgraded(wire.head())
            wire.send(b'["1","1","%b","phx_join",{}]' % TOPICS[number % len(TOPICS)].encode())
            if b'"status":"ok"' not in wire.receive():
                raise LoadError("a page cannot join")
            self._open.append(wire)
        self._stop.clear()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Close all of them."""
        self._stop.set()
        if self._reader is not None:
            self._reader.join()
        for wire in self._open:
            wire.close()
        self._open.clear()

    def _read(self) -> None:
        sockets = {wire.socket.fileno(): wire.socket for wire in self._open}
        while not self._stop.is_set():
            for descriptor in select.select(list(sockets), [], [], 0.2)[0]:
                self.received += len(sockets[descriptor].recv(65536))

    def _sign_in(self) -> str:
        """The header with the cookie."""
        form = urlencode({"key": API_KEY})
        with contextlib.closing(Wire(self._port)) as wire:
            wire.ask(
                f"POST /console/sign-in HTTP/1.1\r\n{self._host}Content-Length: {len(form)}\r\n"
                f"Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}".encode()
            )
            for line in wire.head().decode().split("\r\n"):
                if line.startswith("Set-Cookie: "):
                    return f"Cookie: {line.removeprefix('Set-Cookie: ').partition(';')[0]}\r\n"
        raise LoadError("no cookie")


def run(cores: Cores, options: Options) -> str:
    """Measure; returns the table. ``--rounds 75`` looks for growth over an hour."""
    clients = 200 if options.quick else CLIENTS
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    quiet: list[float] = []
    busy: list[float] = []
    sizes: list[float] = []
    with Nats(cores.load) as nats:
        server = Gateway(nats.url)
        with ServerProcess(server, cores) as process, Load(server) as load:
            load.join(FEW)
            time.sleep(QUIET_SECONDS)
            tabs = Tabs(server.publish_port)
            views = _sent_for_views(nats, tabs)
            load.join(clients)

            def window(*, busy: bool) -> float:
                """CPU, in % of a core."""
                time.sleep(SETTLE_SECONDS)
                before = process.cpu()
                if busy:
                    load.deliver(WINDOW_SECONDS * PER_SECOND, 1 / PER_SECOND)
                else:
                    time.sleep(WINDOW_SECONDS)
                used = process.cpu() - before
                return (used.user + used.kernel) / WINDOW_SECONDS * 100

            window(busy=True)  # all is warm
            for number in range(rounds):
                idle, without = window(busy=False), window(busy=True)
                tabs.open(TABS)
                busy.append(window(busy=True) - without)
                quiet.append(window(busy=False) - idle)
                tabs.close()
                sizes.append(process.resident_bytes() / 2**20)
                print(
                    f"round {number + 1}/{rounds}  console  {quiet[-1]:.2f} % beside {idle:.1f} %"
                    f"  {busy[-1]:.2f} % beside {without:.1f} %  {sizes[-1]:.1f} MiB",
                    file=sys.stderr,
                )
    return (
        "| the console's pages | | lowest | highest |\n|---|--:|--:|--:|\n"
        f"| CPU while no message comes, % of a core | {_spread(quiet)} |\n"
        f"| CPU under the messages, % of a core | {_spread(busy)} |\n"
        f"| messages to the bus for a page that is loaded | {views:.2f} | | |\n"
        f"| growth from the first round to the last, MiB | {sizes[-1] - sizes[0]:.1f} | | |\n"
        f"| of it in the second half, MiB | {sizes[-1] - sizes[len(sizes) // 2]:.1f} | | |\n"
        f"\n{TABS} open pages of a replica with {clients:,} clients of one topic, under {PER_SECOND} messages"
        f" a second to all of them, and under none; what it takes with the pages, less what it takes without."
        f" {rounds} {'round' if rounds == 1 else 'rounds'} of four times {WINDOW_SECONDS} s.\n"
    )


def _spread(values: list[float]) -> str:
    return f"{median(values):.1f} | {min(values):.1f} | {max(values):.1f}"


def _sent_for_views(nats: Nats, tabs: Tabs) -> float:
    """Messages to the bus for each page that is loaded, beyond what is sent in as long a time anyway."""

    def sent(views: int, seconds: float = 0.0) -> tuple[int, float]:
        before, begun = nats.messages(), time.monotonic()
        for number in range(views):
            tabs.view(VIEWED[number % len(VIEWED)])
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
        return nats.messages() - before, time.monotonic() - begun

    busy, seconds = sent(VIEWS, WINDOW_SECONDS)
    idle, _ = sent(0, seconds)
    return (busy - idle) / VIEWS
