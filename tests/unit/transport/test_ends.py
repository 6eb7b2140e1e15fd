"""Many sockets that end in one moment, as when a network or a load balancer takes all with it."""

import asyncio
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from aiohttp import WSMessage, WSMsgType

from gateway.metrics import Metrics
from gateway.transport.websocket import ENDS_PER_TURN, WebSocketTransport

ABNORMAL = 1006


class Replica:
    """The endpoint, and what ends with the sockets."""

    limits = SimpleNamespace(messages_per_second=1.0)

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.open = 0
        self.released = 0

    def clock(self) -> float:
        return 0.0

    def add(self, _connection: object, _transport: str) -> None:
        self.open += 1

    def remove(self, _connection: object, _transport: str) -> None:
        self.open -= 1


class Socket:
    """A connection and its TCP connection."""

    close_code = None

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.answered = self.released = False

    def write(self, _: bytes) -> None:
        self.answered = True

    def is_closing(self) -> bool:
        return False

    def release(self) -> None:
        self.released = True
        self._replica.released += 1

    def close(self) -> None: ...
    def cut_off_later(self) -> None: ...


class Frames:
    """What comes from a socket: its end."""

    close_code = ABNORMAL

    def __init__(self, end: WSMsgType) -> None:
        self._end = end

    async def receive(self) -> WSMessage:
        return WSMessage(self._end, None, None)


def end(replica: Any, sockets: list[Any], how: WSMsgType) -> list["asyncio.Task[None]"]:
    """Have sockets end."""
    absent: Any = None
    frames: Any = Frames(how)
    transport = WebSocketTransport(replica, absent, absent)
    return [asyncio.create_task(transport._run(socket, frames, socket)) for socket in sockets]


async def test_a_crowd_that_is_cut_off_ends_a_few_in_each_turn() -> None:
    replica: Any = Replica()
    sockets: list[Any] = [Socket(replica) for _ in range(3 * ENDS_PER_TURN + 1)]
    ends = end(replica, sockets, WSMsgType.CLOSED)
    released = [0]
    while released[-1] < len(sockets):
        await asyncio.sleep(0)
        released.append(replica.released)
    await asyncio.gather(*ends)

    assert max(after - before for before, after in pairwise(released)) <= ENDS_PER_TURN
    assert replica.open == 0


async def test_a_socket_whose_turn_to_end_does_not_come_is_released_all_the_same() -> None:
    """The server cancels its handlers when it stops."""
    replica: Any = Replica()
    sockets: list[Any] = [Socket(replica) for _ in range(ENDS_PER_TURN + 1)]
    ends = end(replica, sockets, WSMsgType.CLOSED)
    await asyncio.sleep(0)
    ends[-1].cancel()
    await asyncio.wait(ends)

    assert replica.released == len(sockets)
    assert replica.open == 0


async def test_who_says_goodbye_is_answered_when_it_is_no_member_any_more() -> None:
    """A client in the crowd must get no message behind the answer to its close frame (RFC 6455, 5.5.1)."""
    replica: Any = Replica()
    sockets: list[Any] = [Socket(replica) for _ in range(2 * ENDS_PER_TURN)]
    ends = end(replica, sockets, WSMsgType.CLOSE)
    early = 0
    while replica.open or not replica.released:
        await asyncio.sleep(0)
        early += sum(socket.answered and not socket.released for socket in sockets)
    await asyncio.gather(*ends)

    assert early == 0
    assert all(socket.answered for socket in sockets)
