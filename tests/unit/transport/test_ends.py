"""Many sockets that end in one moment, as when a network or a load balancer takes all with it."""

import asyncio
from itertools import pairwise
from typing import Any

from gateway.metrics import Metrics
from gateway.transport.websocket import ENDS_PER_TURN, WebSocketTransport

ABNORMAL = 1006


class Replica:
    """The endpoint, and what ends with the sockets."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.open = 0
        self.released = 0

    def add(self, _connection: object, _transport: str) -> None:
        self.open += 1

    def remove(self, _connection: object, _transport: str) -> None:
        self.open -= 1


class Socket:
    """A connection and its TCP connection."""

    close_code = None

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def release(self) -> None:
        self._replica.released += 1

    def close(self) -> None: ...
    def cut_off_later(self) -> None: ...


class Cut(WebSocketTransport):
    """A transport whose sockets are cut as soon as they are read from."""

    async def _read(self, *_: object) -> int:
        return ABNORMAL


async def test_a_crowd_that_is_cut_off_ends_a_few_in_each_turn() -> None:
    replica: Any = Replica()
    absent: Any = None
    transport = Cut(replica, absent, absent)
    sockets: list[Any] = [Socket(replica) for _ in range(3 * ENDS_PER_TURN + 1)]
    ends = [asyncio.create_task(transport._run(socket, absent, socket)) for socket in sockets]
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
    absent: Any = None
    transport = Cut(replica, absent, absent)
    sockets: list[Any] = [Socket(replica) for _ in range(ENDS_PER_TURN + 1)]
    ends = [asyncio.create_task(transport._run(socket, absent, socket)) for socket in sockets]
    await asyncio.sleep(0)
    ends[-1].cancel()
    await asyncio.wait(ends)

    assert replica.released == len(sockets)
    assert replica.open == 0
