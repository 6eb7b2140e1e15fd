"""One WebSocket: what reaches the socket's logic, when reading waits, and how it ends."""

import asyncio
import struct
from typing import Any

import pytest
import structlog

from gateway.protocol.reasons import CloseCode
from gateway.transport import framing
from gateway.transport.backlog import FRAME_COST, SLICE_COST, TURN_COST, TURN_SECONDS
from gateway.transport.framing import CLOSE, TEXT, close_frame, frame
from tests.unit.transport.shell import (
    CONTINUATION,
    MAX_BYTES,
    OUTBOUND_BYTES,
    PING,
    PONG,
    FakeReplica,
    Shell,
    client_close,
    client_frame,
)

A_MESSAGE = client_frame(TEXT, b"m")


async def turn() -> None:
    """One turn of the event loop, and what it made ready."""
    await asyncio.sleep(0)


async def test_pings_between_fragments_are_answered_at_once() -> None:
    shell = Shell()
    shell.feed(client_frame(TEXT, "ä".encode()[:1], fin=False), client_frame(PING, b"1"))
    assert shell.sent == frame(PONG, b"1")
    shell.feed(client_frame(CONTINUATION, "äb".encode()[1:], fin=False), client_frame(PING))
    shell.feed(client_frame(CONTINUATION))

    assert shell.connection.messages == ["äb"]
    assert shell.sent == frame(PONG, b"1") + frame(PONG, b"")


async def test_a_ping_in_a_message_of_the_greatest_length_is_no_excess() -> None:
    shell = Shell()
    shell.feed(client_frame(TEXT, b"x" * MAX_BYTES, fin=False), client_frame(PING, b"y" * 125))
    shell.feed(client_frame(CONTINUATION))

    assert shell.connection.messages == ["x" * MAX_BYTES]


async def test_empty_fragments_without_end_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "MAX_FRAGMENTS", 1000)
    shell = Shell()
    shell.feed(client_frame(TEXT, fin=False), client_frame(CONTINUATION, fin=False) * 1000)
    while not shell.transport.reading:
        await turn()

    assert shell.connection.close_code is CloseCode.TOO_BIG


AT_ONCE = TURN_COST // FRAME_COST
"""Small frames that are read as they come, of all sockets in one turn."""

SLICE = SLICE_COST // FRAME_COST
"""Small frames of one socket in the backlog, before it is another's turn."""


@pytest.mark.parametrize(
    ("flood", "closed"),
    [
        (client_frame(PING), False),
        (client_frame(PONG), False),
        (A_MESSAGE, False),
        (client_frame(CONTINUATION, fin=False), False),
        (client_frame(PING), True),
        (A_MESSAGE, True),
    ],
    ids=["pings", "pongs", "messages", "fragments", "closed-pings", "closed-messages"],
)
async def test_a_flood_is_gone_through_a_few_frames_a_turn(flood: bytes, closed: bool) -> None:
    shell = Shell()
    if closed:
        shell.connection.close(CloseCode.PROTOCOL_ABUSE)
    shell.feed(client_frame(TEXT, fin=False) if flood[0] & 0x0F == CONTINUATION else b"")
    frames = AT_ONCE + 10 * SLICE
    shell.feed(flood * frames)
    turns = 0
    while not shell.transport.reading:
        await turn()
        turns += 1

    assert turns >= 10
    assert shell.transport.pauses == 1, "it is paused all the while"
    assert shell.socket._pending == b""


async def test_the_bound_of_a_turn_holds_over_many_reads_and_sockets() -> None:
    """An event loop may read from one descriptor more than once in a turn, and from all of them."""
    replica = FakeReplica()
    shells = [Shell(replica) for _ in range(3)]
    for _ in range(AT_ONCE):
        for shell in shells:
            shell.feed(A_MESSAGE * 2)

    read = [len(shell.connection.messages) for shell in shells]
    assert sum(read) <= AT_ONCE + len(shells)
    while not all(shell.transport.reading for shell in shells):
        await turn()
    assert sum(len(shell.connection.messages) for shell in shells) > AT_ONCE + len(shells)


async def test_who_sends_one_frame_does_not_wait_for_those_who_send_many() -> None:
    replica = FakeReplica()
    floods, quiet = [Shell(replica) for _ in range(3)], Shell(replica)
    for shell in floods:
        shell.feed(A_MESSAGE * 100)
    for said in range(1, 5):
        quiet.feed(A_MESSAGE)
        assert len(quiet.connection.messages) == said
        assert not any(shell.transport.reading for shell in floods)
        await turn()


async def test_sockets_that_wait_are_read_in_turn_and_none_is_passed_over() -> None:
    replica = FakeReplica()
    first, second, third = (Shell(replica) for _ in range(3))
    first.feed(A_MESSAGE * (AT_ONCE + 4 * SLICE))
    second.feed(A_MESSAGE * (1 + 2 * SLICE))
    third.feed(A_MESSAGE * (1 + SLICE))
    seen = []
    while not all(shell.transport.reading for shell in (first, second, third)):
        await turn()
        seen.append([len(shell.connection.messages) for shell in (first, second, third)])

    assert seen == [
        [AT_ONCE + SLICE, 1 + SLICE, 1 + SLICE],
        [AT_ONCE + 2 * SLICE, 1 + 2 * SLICE, 1 + SLICE],
        [AT_ONCE + 3 * SLICE, 1 + 2 * SLICE, 1 + SLICE],
        [AT_ONCE + 4 * SLICE, 1 + 2 * SLICE, 1 + SLICE],
    ]


async def test_what_goes_wrong_with_one_that_waits_does_not_keep_the_others_waiting() -> None:
    replica = FakeReplica()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, said: told.append(said["exception"]))

    def fail(_: int) -> bool:
        raise LookupError

    replica.backlog.add(fail)
    shell = Shell(replica)
    shell.feed(A_MESSAGE * (AT_ONCE + SLICE))
    for _ in range(10):
        await turn()

    assert [type(each) for each in told] == [LookupError]
    assert len(shell.connection.messages) == AT_ONCE + SLICE


async def test_dear_frames_are_bounded_by_their_time() -> None:
    replica = FakeReplica()
    shells = [Shell(replica) for _ in range(4)]

    def dear(_: object) -> None:
        replica.now += 1.01 * TURN_SECONDS / SLICE

    for shell in shells:
        shell.feed(A_MESSAGE * (AT_ONCE + 2 * SLICE))
        shell.connection.answer = dear
    before = [len(shell.connection.messages) for shell in shells]
    await turn()
    after = [len(shell.connection.messages) for shell in shells]
    assert [b - a for a, b in zip(before, after, strict=True)] == [SLICE, 0, 0, 0]
    await turn()
    assert len(shells[1].connection.messages) == before[1] + SLICE, "the next ones have their turn"


async def test_of_big_messages_fewer_are_looked_at_in_a_turn() -> None:
    shell = Shell()
    big = A_MESSAGE + client_frame(PING) + client_frame(TEXT, b"x" * MAX_BYTES)
    count = TURN_COST // MAX_BYTES
    shell.feed(big * count)
    assert len(shell.connection.messages) < AT_ONCE - 2
    while not shell.transport.reading:
        await turn()

    assert len(shell.connection.messages) == 2 * count


async def test_a_frame_that_comes_in_many_parts_yields_to_others_too() -> None:
    shell = Shell()
    shell.feed(client_frame(TEXT, b"", length=1 << 40)[:-4])
    parts = 0
    while shell.transport.reading:
        shell.feed(b"x" * 65_536)
        parts += 1

    assert parts <= TURN_COST // 65_536
    await turn()
    assert shell.transport.reading


async def test_who_is_gone_is_not_read_any_more() -> None:
    shell = Shell()
    shell.feed(A_MESSAGE * 100)
    shell.socket.connection_lost(None)
    await turn()
    await turn()

    assert len(shell.connection.messages) == AT_ONCE


async def test_a_closed_socket_is_asked_for_nothing_but_its_close_frame() -> None:
    shell = Shell()
    shell.connection.close(CloseCode.PROTOCOL_ABUSE)
    shell.feed(client_frame(PING), A_MESSAGE, client_frame(0x3, reserved=7), b"\x81\x01x")
    assert shell.connection.messages == []
    assert shell.sent == close_frame(1008)
    assert not shell.ended
    shell.feed(client_close(1008)[:4])
    before = shell.transport.closed
    shell.feed(client_close(1008)[4:], A_MESSAGE)

    assert (before, shell.transport.closed) == (False, True), "not before all of it is there"
    assert shell.sent == close_frame(1008), "it is not answered a second time"
    assert shell.replica.disconnects() == {"1008": 1}


async def test_what_a_client_had_begun_to_say_when_it_was_closed_is_passed_over() -> None:
    shell = Shell()
    long = client_frame(TEXT, b"x" * 900)
    shell.feed(long[:500])
    shell.connection.close(CloseCode.SERVICE_RESTART)
    shell.feed(long[500:] + client_close(1000))

    assert shell.connection.messages == []
    assert shell.transport.closed
    assert shell.replica.disconnects() == {"1012": 1}


async def test_a_client_above_its_rate_waits_and_is_not_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shell = Shell(FakeReplica(messages_per_second=2))
    delays = []
    loop = asyncio.get_running_loop()

    def call_later(delay: float, callback: Any) -> None:
        delays.append(delay)
        shell.replica.now += delay
        loop.call_soon(callback)

    monkeypatch.setattr(loop, "call_later", call_later)
    shell.feed(A_MESSAGE * 2 + client_frame(TEXT, b"m", fin=False) + client_frame(CONTINUATION))
    shell.feed(A_MESSAGE)
    assert len(shell.connection.messages) == 3, "a message in parts is one"
    assert delays == [0.5]
    await turn()

    assert len(shell.connection.messages) == 4
    assert shell.connection.heard_at == 100.5
    await turn()
    assert shell.connection.heard_at == 101.0
    assert shell.transport.reading


async def test_who_does_not_read_the_answers_is_closed() -> None:
    shell = Shell()
    shell.transport.waiting = OUTBOUND_BYTES + 1
    shell.feed(client_frame(PING), A_MESSAGE)

    assert shell.connection.close_code is CloseCode.TRY_AGAIN_LATER
    assert shell.connection.messages == []


async def test_a_crash_is_logged_and_told_and_the_socket_ends() -> None:
    shell = Shell()

    def crash(_: object) -> None:
        raise LookupError

    shell.connection.answer = crash
    with structlog.testing.capture_logs() as lines:
        shell.feed(A_MESSAGE, A_MESSAGE, client_frame(PING))
        for _ in range(4):
            await turn()

    assert [line["event"] for line in lines] == ["socket crashed"]
    assert isinstance(lines[0]["exc_info"], LookupError)
    assert shell.sent == close_frame(1011)
    assert shell.ended
    assert shell.replica.disconnects() == {"1011": 1}
    assert shell.transport.reading, "its close frame may still come"
    shell.feed(client_close(1011))
    assert shell.transport.closed


async def test_a_crash_while_it_ends_leaves_nothing_behind() -> None:
    shell = Shell()

    def crash() -> None:
        raise LookupError

    shell.connection.release = crash  # type: ignore[method-assign]
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(context["background"])
    )
    shell.feed(client_close(1000))

    assert told == ["socket"]
    assert shell.ended
    assert shell.transport.closed
    assert shell.replica.disconnects() == {"1000": 1}


@pytest.mark.parametrize(
    ("said", "label"),
    [
        (client_close(1000), "1000"),
        (client_close(1001, b"going"), "1001"),
        (client_close(4001), "4001"),
        (client_close(3999), "other"),
        (client_frame(CLOSE), "1005"),
    ],
)
async def test_who_says_goodbye_is_answered_and_its_code_counted(said: bytes, label: str) -> None:
    shell = Shell()
    shell.feed(A_MESSAGE, said, A_MESSAGE)

    assert shell.sent == close_frame(1000), "as Phoenix answers whatever the code"
    assert shell.connection.messages == ["m"]
    assert shell.transport.closed
    assert shell.connection.cut_off, "if it does not take its last bytes"
    assert shell.connection.released == 1
    assert shell.replica.disconnects() == {label: 1}
    shell.socket.connection_lost(None)
    assert shell.ended


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (client_frame(TEXT, b"\xff"), 1007),
        (client_frame(TEXT, b"x" * (MAX_BYTES + 1)), 1009),
        (client_frame(TEXT, b"", length=1 << 40), 1009),
        (client_close(1006), 1002),
        (client_frame(TEXT, b"x", masked=False), 1002),
    ],
)
async def test_a_client_at_fault_is_told_why_and_counted_under_that(said: bytes, code: int) -> None:
    shell = Shell()
    shell.feed(said)

    assert shell.sent == close_frame(code)
    assert shell.ended
    assert shell.replica.disconnects() == {str(code): 1}
    assert not shell.transport.closed, "else the close frame could be lost on its way"
    shell.feed(client_frame(PING), A_MESSAGE)
    assert shell.sent == close_frame(code)
    assert shell.connection.messages == []
    shell.socket.connection_lost(None)
    assert shell.ended


async def test_a_lost_connection_is_counted_under_what_was_said_before() -> None:
    lost, closed = Shell(), Shell()
    closed.connection.close(CloseCode.GOING_AWAY)
    for shell in (lost, closed):
        shell.transport.closed = True
        shell.socket.connection_lost(ConnectionResetError())
        assert shell.ended

    assert lost.replica.disconnects() == {"1006": 1}
    assert closed.replica.disconnects() == {"1001": 1}


async def test_a_header_in_pieces_waits_for_the_rest() -> None:
    shell = Shell()
    data = client_frame(TEXT, b"x" * 900) + client_frame(PING)
    for byte in struct.unpack(f"{len(data)}c", data):
        shell.feed(byte)

    assert shell.connection.messages == ["x" * 900]
    assert shell.sent == frame(PONG, b"")
    assert shell.transport.pauses == 0
