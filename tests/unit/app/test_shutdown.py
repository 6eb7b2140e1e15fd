"""Shutting a replica down: nothing waits behind a slow backend, and what is given up is counted."""

import asyncio

from gateway.app import shutdown
from gateway.bus.remote import CLOSE_SECONDS
from gateway.config import Config
from gateway.config.check import GRACE_SECONDS, LAST_SECONDS


class Replica:
    """What a leaving replica has to have done, in the order in which it is done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.bounds: list[float] = []
        self.told = asyncio.Event()
        self.cut = asyncio.Event()
        self.cut.set()
        self.pushes = 0

    async def finish(self, seconds: float) -> int:
        """The callbacks: a backend that does not answer before everything else is done."""
        self.bounds.append(seconds)
        await self.told.wait()
        self.done.append("callbacks")
        return self.pushes

    async def close(self, seconds: float) -> None:
        """The outbox."""
        self.bounds.append(seconds)
        self.done.append("outbox")
        self.told.set()

    async def sockets(self) -> None:
        await self.cut.wait()
        self.done.append("sockets")

    async def hand_over(self) -> None:
        await asyncio.sleep(0)
        self.done.append("users")
        asyncio.get_running_loop().call_later(0.01, self.cut.set)

    async def leave(self) -> list[int]:
        """Leave; returns what was counted."""
        dropped: list[int] = []
        await shutdown.finish(
            sockets=self.sockets(),
            finish_callbacks=self.finish,
            hand_over=self.hand_over(),
            close_outbox=self.close,
            pushes_dropped=dropped.append,
        )
        return dropped


async def test_users_are_handed_over_and_facts_told_beside_a_slow_backend() -> None:
    replica = Replica()

    assert await replica.leave() == []
    assert replica.done == ["sockets", "users", "outbox", "callbacks"]
    assert all(seconds <= shutdown.LAST_SECONDS for seconds in replica.bounds)


async def test_facts_are_taken_for_as_long_as_there_are_sockets_that_end() -> None:
    replica = Replica()
    replica.cut.clear()

    await replica.leave()
    assert replica.done == ["users", "sockets", "outbox", "callbacks"]


async def test_pushes_that_were_given_up_are_counted() -> None:
    replica = Replica()
    replica.pushes = 7

    assert await replica.leave() == [7]


def test_from_sigterm_to_exit_the_defaults_fit_into_the_usual_grace_period() -> None:
    drain = Config().drain

    assert shutdown.LAST_SECONDS + CLOSE_SECONDS < LAST_SECONDS
    assert drain.delay_seconds + drain.window_seconds + LAST_SECONDS <= GRACE_SECONDS
