import asyncio

import pytest

from gateway.bus.requests import NO_RESPONDERS, Reply, Requests
from gateway.errors import BusUnavailable, OutcomeUnknown

MESSAGE = b"NATS/1.0\r\nNats-Sequence: 1\r\n\r\n"
END = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n"


class ManualClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def requests(clock: ManualClock) -> Requests:
    return Requests("p", clock)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def ask(
    requests: Requests, subject: str = "s", *, seconds: float = 5, many: bool = False
) -> tuple[bytes, "asyncio.Task[list[Reply]]"]:
    """Where the answer goes, and who waits for it."""
    number, reply = requests.open(subject, seconds, many=many)

    async def wait() -> list[Reply]:
        try:
            return await requests.wait(number)
        finally:
            requests.close(number)

    return reply.encode(), asyncio.create_task(wait())


async def test_each_answer_finds_its_asker(requests: Requests) -> None:
    first, one = ask(requests)
    second, two = ask(requests)
    assert requests.subject.startswith("p.inbox.")
    assert {first, second} == {requests.subject.replace("*", end).encode() for end in "01"}
    requests.receive(second, b"", b"2")
    requests.receive(first, MESSAGE, b"1")
    assert await one == [Reply(0, MESSAGE, b"1")]
    assert await two == [Reply(0, b"", b"2")]
    assert len(requests) == 0


async def test_an_answer_in_parts_ends_with_a_status(requests: Requests) -> None:
    reply, task = ask(requests, many=True)
    for body in (b"1", b"2"):
        requests.receive(reply, MESSAGE, body)
    await settle()
    assert not task.done()
    requests.receive(reply, END, b"")
    requests.receive(reply, MESSAGE, b"late")
    parts = await task
    assert [(part.status, part.body) for part in parts] == [(0, b"1"), (0, b"2"), (204, b"")]


@pytest.mark.parametrize("many", [False, True])
async def test_nobody_who_listens_is_an_answer_too(requests: Requests, many: bool) -> None:
    reply, task = ask(requests, many=many)
    requests.receive(reply, b"NATS/1.0 503\r\n\r\n", b"")
    assert [part.status for part in await task] == [NO_RESPONDERS]


async def test_what_is_not_answered_in_time_has_an_open_outcome(
    requests: Requests, clock: ManualClock
) -> None:
    late, one = ask(requests, seconds=1)
    in_time, two = ask(requests, seconds=2)
    clock.now += 1
    requests.expire()  # a stall may have been the reason: what has come in the meantime is read first
    await settle()
    assert not one.done()
    requests.expire()
    with pytest.raises(OutcomeUnknown):
        await one
    assert not two.done()
    requests.receive(late, b"", b"1")
    requests.receive(in_time, b"", b"2")
    requests.expire()
    assert await two


async def test_an_answer_may_take_long_as_long_as_its_parts_come(
    requests: Requests, clock: ManualClock
) -> None:
    long, answered = ask(requests, seconds=5, many=True)
    _, silent = ask(requests, seconds=5, many=True)
    await settle()
    for _ in range(4):
        clock.now += 4
        requests.receive(long, MESSAGE, b"x")
        requests.expire()
    await settle()
    assert not answered.done()
    with pytest.raises(OutcomeUnknown):
        await silent
    requests.receive(long, END, b"")
    assert len(await answered) == 5


async def test_a_lost_connection_ends_all_waiting_and_takes_no_more(requests: Requests) -> None:
    tasks = [ask(requests)[1], ask(requests, many=True)[1]]
    requests.stop()
    for task in tasks:
        with pytest.raises(OutcomeUnknown):
            await task
    with pytest.raises(BusUnavailable):
        requests.open("s", 1, many=False)


async def test_a_denied_request_was_certainly_not_heard(requests: Requests) -> None:
    _, denied = ask(requests, "Some.Subject")
    reply, other = ask(requests, "other")
    assert not requests.refused("nobody.asked", "no")
    assert requests.refused("Some.Subject", "the server's words")
    with pytest.raises(BusUnavailable, match="the server's words"):
        await denied
    requests.receive(reply, b"", b"")
    assert await other


async def test_who_gave_up_gets_nothing_and_harms_nobody(requests: Requests) -> None:
    reply, task = ask(requests)
    kept, other = ask(requests)
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    requests.receive(reply, b"", b"")
    requests.receive(kept, b"", b"")
    assert await other


@pytest.mark.parametrize("end", [b"", b"x", b"-1", b"1.2", b"99999999999999999999", "²".encode()])
async def test_an_answer_to_nothing_harms_nobody(requests: Requests, end: bytes) -> None:
    reply, task = ask(requests)
    requests.receive(requests.subject.encode().replace(b"*", end), b"", b"x")
    requests.receive(reply, b"NATS/1.0 abc", b"right")
    assert await task == [Reply(0, b"NATS/1.0 abc", b"right")]
