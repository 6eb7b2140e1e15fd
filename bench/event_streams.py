"""The part ``sse``: what an event stream costs beside a WebSocket, and how one that is not read ends."""

import json
import socket
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from typing import Final

from bench.compression import FramedGateway, FrameLoad
from bench.idle import rounds_of, spread
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.report import ratio
from bench.scenarios import Figures, Scale
from bench.servers.base import EVENT, PAYLOAD, TOPIC
from bench.wire import LoadError, Wire, unmasked
from gateway.config import LimitsSettings

CONNECTIONS: Final = 5000
BROADCASTS: Final = 100
SETTLE_SECONDS: Final = 3.0
LARGE_BYTES: Final = 50_000
STALLED_SECONDS: Final = 60.0

_BOUND: Final = LimitsSettings().outbound_buffer_bytes


class SocketGateway(FramedGateway):
    """A replica with WebSockets."""

    def __init__(self) -> None:
        super().__init__()
        self.frame = unmasked(self.text())


class StreamGateway(FramedGateway):
    """A replica with event streams of one topic."""

    between = b"3\r\n:\n\n\r\n"

    def __init__(self) -> None:
        super().__init__()
        data = json.dumps({"topic": TOPIC, "event": EVENT}, separators=(",", ":")).encode()
        event = b"event: %b\ndata: %b" % (EVENT.encode(), data[:-1])
        event += b',"payload":%b}\n\n' % PAYLOAD
        self.frame = b"%x\r\n%b\r\n" % (len(event), event)

    def path(self, number: int) -> str:
        return super().path(number).replace("/websocket?", f"/sse?topic={self.topic(number)}&")

    def join(self, wire: Wire, number: int) -> None:
        wire.ask(f"GET {self.path(number)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        if not (head := wire.head()).startswith(b"HTTP/1.1 200"):
            raise LoadError(f"no stream: {head[:200]!r}")
        while b"\nid: " not in wire.rest or not wire.rest.endswith(b"\n\n\r\n"):
            if b"event: " in wire.rest:
                raise LoadError(f"not joined: {wire.rest!r}")
            wire.rest += wire.socket.recv(4096)
        wire.rest = b""


_KINDS: Final[dict[str, Callable[[], FramedGateway]]] = {
    "WebSocket": SocketGateway,
    "event stream": StreamGateway,
}


def run(cores: Cores, options: Options) -> str:
    """Measure both; returns the table."""
    scale = Scale(CONNECTIONS, 10, BROADCASTS, SETTLE_SECONDS)
    if options.quick:
        scale = Scale(100, 5, 50, 1.0)
    rounds = rounds_of(options, "sse", lambda: streams(cores, scale))
    rows = "".join(_row(kind, rounds) for kind in _KINDS)
    stalled = spread(rounds, "stalled KB", ",.0f").replace(" |", ",")
    return (
        "| listener | CPU µs a delivery | lowest | highest | ratio | KiB each | lowest | highest |\n"
        f"|---|--:|--:|--:|--:|--:|--:|--:|\n{rows}\n{scale.connections:,} on one topic without "
        f"history, {scale.broadcasts:,} messages of {len(PAYLOAD)} bytes, each published when all have "
        f"the one before; medians of {len(rounds)} {'round' if len(rounds) == 1 else 'rounds'}, and their "
        "lowest and highest. A stream whose client reads nothing was closed as a slow consumer after "
        f"{stalled} KB (median, lowest, highest) were published: {_BOUND // 1000:,} KB may wait in the "
        "gateway, the rest was the kernel's.\n"
    )


def _row(kind: str, rounds: list[Figures]) -> str:
    mine, base = ([each[f"{name} cpu"] for each in rounds] for name in (kind, "WebSocket"))
    shown = "1" if kind == "WebSocket" else ratio(mine, base)
    cells = (spread(rounds, f"{kind} cpu", ".2f"), shown, spread(rounds, f"{kind} KiB", ".2f"))
    return f"| {kind} | {' | '.join(cells)} |\n"


def streams(cores: Cores, scale: Scale) -> Figures:
    """For each kind ``<kind> cpu`` in µs and ``<kind> KiB``; ``stalled KB`` as :func:`stalled` has it."""
    figures: Figures = {}
    for kind, make in _KINDS.items():
        server = make()
        with ServerProcess(server, cores) as process, FrameLoad(server) as load:
            first = scale.connections // 10  # what the first ones need is no listener's
            load.join(first)
            resident = process.resident_bytes()
            load.join(scale.connections + first)
            time.sleep(scale.settle_seconds)
            grown = process.resident_bytes() - resident
            load.deliver(scale.warm_up)
            before = process.cpu()
            load.deliver(scale.broadcasts)
            used = process.cpu() - before
        deliveries = (scale.connections + first) * scale.broadcasts
        figures[f"{kind} cpu"] = (used.user + used.kernel) / deliveries * 1e6
        figures[f"{kind} KiB"] = grown / scale.connections / 1024
    figures["stalled KB"] = stalled(cores) / 1000
    return figures


def stalled(cores: Cores) -> int:
    """Bytes published until a stream that is not read is closed."""
    server = StreamGateway()
    with ServerProcess(server, cores), closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        server.join(Wire(client), 0)
        request = server.publish(b'{"data":"%b"}' % (b"x" * LARGE_BYTES))
        published, deadline = 0, time.monotonic() + STALLED_SECONDS
        with closing(Wire(server.publish_port)) as api:
            while not _given_up(server):
                api.ask(request)
                api.answered()
                published += LARGE_BYTES
                if time.monotonic() > deadline:
                    raise LoadError("a stream that nobody reads is not closed")
    return published


def _given_up(server: StreamGateway) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.publish_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return "gateway_slow_consumers_total 1.0" in lines
