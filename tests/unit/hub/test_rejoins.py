"""Members that have to join again: told a slice at a time, and nothing reaches them until they are."""

import asyncio
from itertools import pairwise

from gateway.device import UNKNOWN, Device
from gateway.hub.broadcast import Broadcast
from gateway.hub.fanout import Fanout
from gateway.hub.registry import Member, Registry
from gateway.hub.rejoins import SLICE_MEMBERS, Rejoins
from gateway.metrics import Metrics

ROOM = "room:1"


class Form:
    """An encoding that gives a message as its event."""

    def __init__(self, *, positions: bool = True) -> None:
        self.positions = positions

    def broadcast(self, message: Broadcast, *, shared: bool = True) -> bytes | None:  # noqa: ARG002 -- no difference here
        return message.event.encode()


class Socket:
    """An outlet that remembers what its client hears; the one that is broken cannot be told."""

    user = ""
    device: Device = UNKNOWN

    def __init__(self, *, broken: bool = False) -> None:
        self.id = ""
        self.heard: list[str] = []
        self.broken = broken
        self.ended: Member | None = None

    @property
    def wire(self) -> "Socket":
        return self

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        self.heard.append(data.decode())

    clear = False

    def get_write_buffer_size(self) -> int:
        return 0

    def overflowed(self) -> None:
        raise NotImplementedError

    def rejoin(self, topic: str, member: object) -> None:
        assert topic == ROOM
        assert isinstance(member, Member)
        if self.broken:
            raise RuntimeError("broken")
        self.ended = member
        self.heard.append("phx_error")


class Hub:
    """Registry, fan-out and rejoins on the running loop."""

    def __init__(self) -> None:
        self.registry = Registry()
        self.rejoins = Rejoins(self.registry)
        self.fanout = Fanout(
            self.registry,
            Metrics(),
            outbound_limit=1,
            call_soon=asyncio.get_running_loop().call_soon,
            call_later=asyncio.get_running_loop().call_later,
            clock=lambda: 0.0,
        )

    def join(self, *, positions: bool = True, broken: bool = False) -> Socket:
        socket = Socket(broken=broken)
        self.registry.add(ROOM, Member(socket, Form(positions=positions), drops=False))
        return socket

    def send(self, event: str) -> None:
        self.fanout.send(Broadcast(ROOM, event, b"{}"))


def told(sockets: list[Socket]) -> int:
    """How many were told."""
    return sum("phx_error" in socket.heard for socket in sockets)


async def test_a_crowd_is_told_a_slice_in_each_turn() -> None:
    hub = Hub()
    sockets = [hub.join() for _ in range(3 * SLICE_MEMBERS + 1)]
    hub.rejoins.begin(ROOM)
    counts = [told(sockets)]
    while counts[-1] < len(sockets):
        await asyncio.sleep(0)
        counts.append(told(sockets))
    assert counts[0] == 0
    assert max(after - before for before, after in pairwise(counts)) == SLICE_MEMBERS
    assert all(socket.heard == ["phx_error"] for socket in sockets)


async def test_no_message_comes_between_the_loss_and_the_word_of_it() -> None:
    """Neither one of the new epoch nor one that waited: it would seem to follow what was before."""
    hub = Hub()
    sockets = [hub.join() for _ in range(2 * SLICE_MEMBERS)]
    hub.send("old")
    hub.rejoins.begin(ROOM)
    hub.send("new")
    while told(sockets) < len(sockets):
        await asyncio.sleep(0)
        hub.send("newer")
    assert all(socket.heard == ["phx_error"] for socket in sockets)


async def test_who_joins_while_others_are_told_is_let_be_and_hears_what_is_new() -> None:
    hub = Hub()
    sockets = [hub.join() for _ in range(2 * SLICE_MEMBERS)]
    hub.rejoins.begin(ROOM)
    newcomer = hub.join()
    hub.send("new")
    for _ in range(5):
        await asyncio.sleep(0)
    assert told(sockets) == len(sockets)
    assert newcomer.heard == ["new"]


async def test_who_wants_no_positions_stays() -> None:
    hub = Hub()
    plain, resuming = hub.join(positions=False), hub.join()
    hub.rejoins.begin(ROOM)
    hub.send("new")
    for _ in range(3):
        await asyncio.sleep(0)
    assert (plain.heard, resuming.heard) == (["new"], ["phx_error"])


async def test_each_is_told_once_however_often_messages_are_lost() -> None:
    hub = Hub()
    socket = hub.join()
    for _ in range(3):
        hub.rejoins.begin(ROOM)
        await asyncio.sleep(0)
    assert socket.heard == ["phx_error"]


async def test_one_that_cannot_be_told_keeps_nobody_from_it() -> None:
    hub = Hub()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: complaints.append(context["exception"])
    )
    hub.join(broken=True)
    socket = hub.join()
    hub.rejoins.begin(ROOM)
    for _ in range(3):
        await asyncio.sleep(0)
    assert socket.heard == ["phx_error"]
    assert [str(complaint) for complaint in complaints] == ["broken"]
