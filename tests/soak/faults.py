"""What goes wrong during a soak."""

import asyncio
import random

from tests.faults.lab import Lab
from tests.faults.timeline import Timeline

PAUSE_SECONDS = (0.3, 1.5)
"""Between two faults, and before something that was ended is started again: clients may not be back yet."""

CUT_SHARE = (0.2, 0.8)


class Faults:
    """Makes things go wrong, one after the other; at least two replicas are always there.

    Args:
        chance: Chooses what, whom and when.

    Attributes:
        made: The names of all that were made, in order.
    """

    def __init__(self, lab: Lab, timeline: Timeline, chance: random.Random) -> None:
        self._lab = lab
        self._timeline = timeline
        self._chance = chance
        self._kinds = {
            "replica killed": self._kill,
            "nats-server restarted": self._restart_nats,
            "connections cut": self._cut,
            "rolling drain": self._drain,
        }
        self.made: list[str] = []

    async def round(self) -> None:
        """Each fault once, in random order."""
        kinds = list(self._kinds)
        self._chance.shuffle(kinds)
        for kind in kinds:
            await self._pause()
            self.made.append(kind)
            await self._kinds[kind]()

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))

    async def _kill(self) -> None:
        number = self._chance.randrange(len(self._lab.replicas))
        replica = self._lab.replicas[number]
        self._timeline.note(f"replica {number} is killed")
        await asyncio.to_thread(replica.kill)
        await self._pause()
        await self._start(number)

    async def _start(self, number: int) -> None:
        await asyncio.to_thread(self._lab.replicas[number].start)
        self._timeline.note(f"replica {number} is ready again")

    async def _restart_nats(self) -> None:
        """In order, or with -9."""
        how = self._chance.choice(["stop", "kill"])
        self._timeline.note(f"nats-server ends: {how}")
        await asyncio.to_thread(getattr(self._lab.nats, how))
        await self._pause()
        await asyncio.to_thread(self._lab.nats.start)
        self._timeline.note("nats-server is started again")

    async def _cut(self) -> None:
        """Some connections now, and some again while their clients may still be joining."""
        for _ in range(2):
            share = self._chance.uniform(*CUT_SHARE)
            count = self._lab.links.reset(self._lab.balancer, share, self._chance)
            self._timeline.note(f"{count} connections are cut")
            await asyncio.sleep(self._chance.uniform(0.05, 0.5))

    async def _drain(self) -> None:
        """A deploy: one replica after the other."""
        order = list(range(len(self._lab.replicas)))
        self._chance.shuffle(order)
        for number in order:
            self._timeline.note(f"replica {number} drains")
            self._lab.replicas[number].terminate()
            await asyncio.to_thread(self._lab.replicas[number].wait)
            self._timeline.note(f"replica {number} is gone")
            await self._start(number)
