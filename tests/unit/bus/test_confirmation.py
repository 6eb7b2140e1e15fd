import asyncio
from collections.abc import Iterable

import pytest

from gateway.bus.confirmation import Confirmations, Listening
from gateway.bus.delivery import Delivery, RemoteSubscription
from gateway.errors import BusUnavailable, SubscriptionRefused
from gateway.metrics import Metrics


class FakeLine:
    """A connection on which the test answers the PINGs.

    Attributes:
        sent: Subjects and PINGs in the order in which they were sent.
    """

    clustered = False

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.pongs: list[asyncio.Future[bool]] = []

    def listen(self, subscriptions: Iterable[Listening]) -> None:
        self.sent += [subscription.subject for subscription in subscriptions]

    def ping(self) -> "asyncio.Future[bool]":
        self.sent.append("PING")
        self.pongs.append(asyncio.get_running_loop().create_future())
        return self.pongs[-1]


def subscription(subject: str) -> RemoteSubscription:
    return RemoteSubscription(subject, print, Delivery(Metrics()), lambda _: None)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_of_one_turn_share_a_ping_behind_their_subs() -> None:
    line = FakeLine()
    confirmations = Confirmations(line)
    tasks = [asyncio.create_task(confirmations.confirm(subscription(s))) for s in "abc"]
    await settle()
    assert line.sent == ["a", "b", "c", "PING"]
    assert not any(task.done() for task in tasks)
    line.pongs[0].set_result(True)
    await asyncio.gather(*tasks)


async def test_a_later_one_does_not_wait_for_the_answer_to_an_earlier_one() -> None:
    line = FakeLine()
    confirmations = Confirmations(line)
    first = asyncio.create_task(confirmations.confirm(subscription("a")))
    await settle()
    second = asyncio.create_task(confirmations.confirm(subscription("b")))
    await settle()
    assert line.sent == ["a", "PING", "b", "PING"]
    line.pongs[0].set_result(True)
    await first
    assert not second.done()
    line.pongs[1].set_result(True)
    await second


async def test_a_refusal_is_for_the_oldest_unanswered_only() -> None:
    line = FakeLine()
    confirmations = Confirmations(line)
    tasks = []
    for _ in range(2):
        tasks.append(asyncio.create_task(confirmations.confirm(subscription("Same"))))
        await settle()
    confirmations.refuse("Same", "the server's words")
    for pong in line.pongs:
        pong.set_result(True)
    with pytest.raises(SubscriptionRefused, match="the server's words"):
        await tasks[0]
    await tasks[1]
    confirmations.refuse("Same", "nobody waits for it any more")


async def test_those_that_found_no_room_are_the_last_ones_sent() -> None:
    line = FakeLine()
    confirmations = Confirmations(line)
    waiting = asyncio.create_task(confirmations.confirm_all(map(subscription, "abcd")))
    await settle()
    confirmations.refuse("c", "denied")
    for _ in range(2):
        confirmations.refuse_one("full")
    line.pongs[0].set_result(True)
    assert await waiting == {"c": "denied", "d": "full", "b": "full"}
    confirmations.refuse_one("nobody waits for it")


async def test_a_lost_connection_ends_all_waiting() -> None:
    line = FakeLine()
    confirmations = Confirmations(line)
    asked = asyncio.create_task(confirmations.confirm(subscription("a")))
    await settle()
    gathering = asyncio.create_task(confirmations.confirm(subscription("b")))
    await asyncio.sleep(0)
    confirmations.stop()
    for task in (asked, gathering):
        with pytest.raises(BusUnavailable):
            await task
    with pytest.raises(BusUnavailable):
        await confirmations.confirm(subscription("c"))
    line.pongs[0].set_result(True)  # read before the loss was noticed
    await settle()
    assert line.sent == ["a", "PING"]


async def test_one_that_is_cancelled_leaves_the_others_waiting() -> None:
    line = FakeLine()
    confirmations = Confirmations(line)
    tasks = [asyncio.create_task(confirmations.confirm(subscription(s))) for s in "ab"]
    await settle()
    tasks[0].cancel()
    await settle()
    assert not line.pongs[0].cancelled()
    line.pongs[0].set_result(True)
    await tasks[1]


async def test_what_is_closed_before_it_was_sent_is_not_sent() -> None:
    """It would stay on the server for as long as the connection."""
    line = FakeLine()
    confirmations = Confirmations(line)
    kept, closed = subscription("kept"), subscription("closed")
    task = asyncio.create_task(confirmations.confirm_all((kept, closed)))
    asyncio.get_running_loop().call_soon(closed.close)
    await settle()
    assert line.sent == ["kept", "PING"]
    line.pongs[0].set_result(True)
    assert await task == {}


async def test_a_line_that_breaks_as_it_is_written_to_leaves_nobody_waiting() -> None:
    class Broken(FakeLine):
        def listen(self, _subscriptions: Iterable[Listening]) -> None:
            raise RuntimeError

    confirmations = Confirmations(Broken())
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    waiting = asyncio.create_task(confirmations.confirm(subscription("a")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    confirmations.stop()

    with pytest.raises(BusUnavailable):
        await asyncio.wait_for(waiting, 5)
