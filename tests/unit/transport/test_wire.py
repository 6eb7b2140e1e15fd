"""The wire of a TCP connection: bytes come in order, all of them, and no descriptor is used too long."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from gateway.transport.wire import SocketWire

LITTLE = 4096
MUCH = 1 << 20


class Pair:
    """A transport that keeps what it is given, before a socket whose other end is read here."""

    def __init__(self) -> None:
        self.here, self.there = socket.socketpair()
        self.here.setblocking(False)
        self.there.setblocking(False)
        self.here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE)
        self.extra: dict[str, object] = {"socket": self.here}
        self.kept = b""
        self.limits: list[int] = []
        self.ended = ""

    def get_extra_info(self, name: str) -> object:
        return self.extra.get(name)

    def set_write_buffer_limits(self, high: int) -> None:
        self.limits.append(high)

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def write(self, data: bytes) -> None:
        self.kept += data

    def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"

    def read(self) -> bytes:
        """All that is there."""
        got = b""
        while True:
            try:
                part = os.read(self.there.fileno(), MUCH)
            except BlockingIOError:
                return got
            if not part:
                return got
            got += part


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    with made.here, made.there:
        yield made


def wire_to(pair: Pair) -> SocketWire:
    transport: Any = pair
    return SocketWire(transport)


def test_bytes_go_to_the_kernel_while_nothing_waits(pair: Pair) -> None:
    wire = wire_to(pair)
    wire.write(b"one")
    wire.write(b"two")
    assert (pair.read(), pair.kept, wire.get_write_buffer_size()) == (b"onetwo", b"", 0)
    assert pair.limits == [0]


def test_what_follows_a_rest_waits_behind_it(pair: Pair) -> None:
    wire = wire_to(pair)
    first = os.urandom(MUCH)
    wire.write(first)
    taken = pair.read()  # so that there is room again
    assert 0 < len(taken) < MUCH
    wire.write(b"second")
    assert (pair.read(), taken + pair.kept) == (b"", first + b"second")
    assert wire.get_write_buffer_size() == len(pair.kept)
    pair.kept = pair.kept[6:]
    wire.resumed()  # too early
    wire.write(b"third")
    assert (pair.read(), pair.kept[-11:]) == (b"", b"secondthird")
    pair.kept = b""
    wire.resumed()
    wire.write(b"fourth")
    assert (pair.read(), pair.kept) == (b"fourth", b"")


def test_what_waits_from_before_goes_first(pair: Pair) -> None:
    pair.kept = b"before"
    wire = wire_to(pair)
    wire.write(b"!")
    assert (pair.read(), pair.kept) == (b"", b"before!")


def test_a_fault_is_the_transports_to_find(pair: Pair) -> None:
    wire = wire_to(pair)
    pair.there.close()
    wire.write(b"lost")
    assert pair.kept == b"lost"


@pytest.mark.parametrize("end", [SocketWire.lost, SocketWire.close, SocketWire.abort])
def test_a_descriptor_is_not_used_after_the_end(
    pair: Pair, end: Callable[[SocketWire], None]
) -> None:
    wire = wire_to(pair)
    end(wire)
    wire.resumed()
    wire.write(b"late")
    assert (pair.read(), pair.kept) == (b"", b"late")
    assert pair.ended == {"close": "closed", "abort": "aborted"}.get(end.__name__, "")


@pytest.mark.parametrize("extra", [{}, {"sslcontext": "any"}], ids=["no socket", "TLS"])
def test_other_transports_get_everything(pair: Pair, extra: dict[str, object]) -> None:
    pair.extra = {**extra, **({"socket": pair.here} if extra else {})}
    wire = wire_to(pair)
    wire.write(b"secret")
    pair.kept = b""
    wire.resumed()
    wire.write(b"more")
    assert (pair.read(), pair.kept, pair.limits) == (b"", b"more", [])


class Owner(asyncio.Protocol):
    """The protocol of a wire's transport."""

    wire: SocketWire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or "uvloop" in type(transport).__module__
        its: Any = transport
        self.wire = SocketWire(its)

    def resume_writing(self) -> None:
        self.wire.resumed()

    def connection_lost(self, _: Exception | None) -> None:
        self.wire.lost()


async def converse(steps: list[tuple[int, int]]) -> tuple[bytes, bytes]:
    """Write so many bytes and read so many, by turns; returns what was written and what was read."""
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LITTLE)
    here.setblocking(False)
    there.setblocking(False)
    written = read = b""
    with there:
        transport, owner = await loop.connect_accepted_socket(Owner, here)
        for size, wanted in steps:
            data = os.urandom(size)
            written += data
            owner.wire.write(data)
            if wanted:
                with contextlib.suppress(BlockingIOError):
                    read += there.recv(wanted)
                await asyncio.sleep(0)
        while len(read) < len(written):
            read += await loop.sock_recv(there, MUCH)
        await asyncio.sleep(0)
        assert owner.wire.get_write_buffer_size() == 0
        transport.close()
        await asyncio.sleep(0)
    return written, read


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@given(steps=st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 20_000)), max_size=30))
def test_a_slow_reader_gets_everything_in_order(
    factory: Callable[[], asyncio.AbstractEventLoop], steps: list[tuple[int, int]]
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        written, read = runner.run(converse(steps))
    assert read == written
