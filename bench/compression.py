"""The part ``compression``: bytes on the wire, CPU for a delivery and memory, with and without."""

import os
import random
import time
import zlib
from functools import partial
from typing import Final

import msgspec

from bench.idle import rounds_of, spread
from bench.load import Clients, Load
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.remote import Remote
from bench.report import ratio
from bench.scenarios import Figures, Scale
from bench.servers.base import PAYLOAD, TOPIC
from bench.servers.gateway import Gateway, check_joined
from bench.wire import TEXT, LoadError, Wire, check_upgraded, masked, unmasked, upgrade
from gateway.config import CompressionSettings
from gateway.transport.compression import Deflater
from gateway.transport.framing import RSV1

SIZES: Final = (200, 2000, 20_000)
"""Bytes of JSON, about."""

CONNECTIONS: Final = 1000
BROADCASTS: Final = 300
SETTLE_SECONDS: Final = 3.0
_READ_BYTES: Final = 65_536

_WORDS: Final = """
order shipped pending warehouse delivery invoice refund customer message channel update status comment review
build branch failed passed assigned closed reopened mentioned you in the to of and a for on with
""".split()  # noqa: SIM905 -- it can be read


def document(size: int) -> bytes:
    """A JSON object of at least so many bytes, as an application sends it: names repeat, values do not."""
    chance = random.Random(size)
    items: list[object] = []
    while len(text := msgspec.json.encode({"items": items})) < size:
        author = {
            "id": chance.randrange(10**6),
            "name": " ".join(chance.choices(_WORDS, k=2)).title(),
            "avatar": f"https://cdn.example.com/{chance.randbytes(6).hex()}.png",
        }
        items.append(
            {
                "id": chance.randrange(10**9),
                "type": chance.choice(["order.updated", "comment.created", "status.changed"]),
                "at": f"2026-03-1{chance.randrange(10)}T10:2{chance.randrange(10)}:00Z",
                **({"author": author, "read": chance.random() < 0.5} if size > 500 else {}),
                "text": " ".join(chance.choices(_WORDS, k=14 if size > 500 else 20)),
            }
        )
    return text


class FramedGateway(Gateway):
    """A replica of which it is known how each byte of a broadcast looks.

    Attributes:
        frame: What every client must get, to the last byte.
        between: What may come before or after it; empty for nothing.
    """

    frame = b""
    between = b""


class CompressingGateway(FramedGateway):
    """A replica whose clients each agree to compression, or without it where ``enabled`` says so."""

    def __init__(self, payload: bytes, *, enabled: bool) -> None:
        super().__init__(sections="[compression]\nenabled = true" if enabled else "")
        self._payload = payload
        self._enabled = enabled
        self.frame = unmasked(self.text(payload))
        if enabled:
            compress = Deflater(CompressionSettings().min_bytes, before=_nothing, after=_nothing)
            self.frame = compress(self.frame)

    def join(self, wire: Wire, number: int) -> None:
        """A client of a compressing gateway compresses what it says, too."""
        if not self._enabled:
            super().join(wire, number)
            return
        request = upgrade(self.path(number)).removesuffix(b"\r\n")
        wire.ask(request + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        check_upgraded(head := wire.head())
        if b"permessage-deflate" not in head:
            raise LoadError(f"no compression: {head!r}")
        deflate = zlib.compressobj(wbits=-15)
        text = deflate.compress(self.joining(number)) + deflate.flush(zlib.Z_SYNC_FLUSH)
        wire.socket.sendall(masked(RSV1 | TEXT, text[:-4]))
        check_joined(wire.receive())

    def publish(self, payload: bytes = PAYLOAD, topic: str = TOPIC) -> bytes:
        """Its own payload, unless told otherwise."""
        return super().publish(self._payload if payload is PAYLOAD else payload, topic)


class FrameClients(Clients):
    """Clients that get one frame again and again, of any length, and compare every byte."""

    def __init__(self, server: FramedGateway) -> None:
        super().__init__(server)
        self._frame, self._between = server.frame, server.between
        self._come: dict[int, int] = {}  # descriptor -> bytes of a frame that is not all there

    def _read(self, seconds: float) -> int:
        got = 0
        for descriptor, _ in self._epoll.poll(seconds, 1024):
            data = os.read(descriptor, _READ_BYTES)
            if self._between and not (data := data.replace(self._between, b"")):
                continue
            start = self._come.get(descriptor, 0)
            end = start + len(data)
            if not data or data != self._frame[start:end]:
                raise LoadError(f"not what was published: {data[:200]!r}")
            self._come[descriptor] = end % len(self._frame)
            if end == len(self._frame):
                self._received[descriptor] += 1
                if self._received[descriptor] != self._wanted:
                    raise LoadError("a client got a message too many")
                got += 1
        return got


class FrameLoad(Load):
    """The process of such clients."""

    def __init__(self, server: FramedGateway) -> None:
        Remote.__init__(self, partial(FrameClients, server))


def run(cores: Cores, options: Options) -> str:
    """Measure each size with and without; returns the table."""
    scale = Scale(CONNECTIONS, 20, BROADCASTS, SETTLE_SECONDS)
    if options.quick:
        scale = Scale(100, 5, 50, 1.0)
    rounds = rounds_of(options, "compression", lambda: compression(cores, scale))
    rows = "".join(_row(size, rounds) for size in SIZES)
    return (
        "| JSON | bytes a delivery | compressed | less | CPU µs a delivery | lowest | highest "
        "| compressed | lowest | highest | ratio |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        f"{rows}\n{scale.connections:,} subscribers, {scale.broadcasts:,} messages, each published when all "
        f"have the one before; medians of {len(rounds)} {'round' if len(rounds) == 1 else 'rounds'}, and "
        "their lowest and highest. Below 512 bytes nothing is compressed. A joined connection that agreed "
        f"to compression takes {spread(rounds, 'memory with', '.2f').replace(' |', ',')} KiB, one without it "
        f"{spread(rounds, 'memory without', '.2f').replace(' |', ',')} KiB (median, lowest, highest).\n"
    )


def _row(size: int, rounds: list[Figures]) -> str:
    plain, compressed = (rounds[0][f"{size} bytes {kind}"] for kind in ("without", "with"))
    cpu = [[figures[f"{size} cpu {kind}"] for figures in rounds] for kind in ("with", "without")]
    return (
        f"| {size:,} | {plain:,.0f} | {compressed:,.0f} | {1 - compressed / plain:.0%} "
        f"| {spread(rounds, f'{size} cpu without', '.2f')} | {spread(rounds, f'{size} cpu with', '.2f')} "
        f"| {ratio(*cpu)} |\n"
    )


def compression(cores: Cores, scale: Scale) -> Figures:
    """For each size and kind ``<size> bytes <kind>`` and ``<size> cpu <kind>``; ``memory <kind>`` in KiB."""
    figures: Figures = {}
    for kind, enabled in (("without", False), ("with", True)):
        for size in SIZES:
            server = CompressingGateway(document(size), enabled=enabled)
            figures[f"{size} bytes {kind}"] = len(server.frame)
            figures[f"{size} cpu {kind}"] = _delivery(server, cores, scale)
        server = CompressingGateway(document(SIZES[0]), enabled=enabled)
        with ServerProcess(server, cores) as process, FrameLoad(server) as load:
            load.join(scale.connections // 10)  # what the first ones need is no socket's
            before = process.resident_bytes()
            load.join(scale.connections + scale.connections // 10)
            time.sleep(scale.settle_seconds)
            grown = process.resident_bytes() - before
        figures[f"memory {kind}"] = grown / scale.connections / 1024
    return figures


def _delivery(server: CompressingGateway, cores: Cores, scale: Scale) -> float:
    """CPU µs of the gateway for each message delivered; the publishing request is part of it."""
    with ServerProcess(server, cores) as process, FrameLoad(server) as load:
        load.join(scale.connections)
        load.deliver(scale.warm_up)
        before = process.cpu()
        load.deliver(scale.broadcasts)
        used = process.cpu() - before
    return (used.user + used.kernel) / scale.connections / scale.broadcasts * 1e6


def _nothing(_: int) -> None:
    """Counts nothing."""
