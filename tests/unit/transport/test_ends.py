"""Many sockets that end in one moment, as when a network or a load balancer takes all with it."""

import asyncio
from collections.abc import Callable
from itertools import pairwise

import pytest

from gateway.transport.websocket import ENDS_PER_TURN
from tests.unit.transport.shell import FakeReplica, Shell, client_close


def cut_off(shell: Shell) -> None:
    """Have its TCP connection end."""
    shell.transport.closed = True
    shell.socket.connection_lost(None)


def say_goodbye(shell: Shell) -> None:
    """Have its client close it."""
    shell.feed(client_close(1000))


@pytest.mark.parametrize("end", [cut_off, say_goodbye])
async def test_a_crowd_ends_a_few_in_each_turn(end: Callable[[Shell], None]) -> None:
    replica = FakeReplica()
    shells = [Shell(replica) for _ in range(3 * ENDS_PER_TURN + 1)]
    for shell in shells:
        end(shell)
    ended = [0, len(replica.removed)]
    while ended[-1] < len(shells):
        await asyncio.sleep(0)
        ended.append(len(replica.removed))

    assert max(after - before for before, after in pairwise(ended)) <= ENDS_PER_TURN
    assert all(shell.connection.released == 1 for shell in shells)


async def test_who_says_goodbye_is_answered_when_it_is_no_member_any_more() -> None:
    """A client in the crowd must get no message behind the answer to its close frame (RFC 6455, 5.5.1)."""
    replica = FakeReplica()
    shells = [Shell(replica) for _ in range(2 * ENDS_PER_TURN)]
    for shell in shells:
        say_goodbye(shell)
    while not all(shell.ended for shell in shells):
        assert all(bool(shell.sent) == shell.ended for shell in shells)
        await asyncio.sleep(0)

    assert all(shell.sent and shell.transport.closed for shell in shells)


async def test_who_says_goodbye_and_is_gone_before_its_turn_ends_once_with_its_code() -> None:
    replica = FakeReplica()
    for _ in range(ENDS_PER_TURN):
        cut_off(Shell(replica))
    last = Shell(replica)
    say_goodbye(last)
    cut_off(last)
    for _ in range(4):
        await asyncio.sleep(0)

    assert last.sent == b""
    assert replica.disconnects() == {"1006": ENDS_PER_TURN, "1000": 1}
