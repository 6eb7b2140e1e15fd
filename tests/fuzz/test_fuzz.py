"""The short form of ``make fuzz``, with a fixed seed; and every input that once broke something."""

import random

import pytest

from tests.fuzz.inputs import Inputs
from tests.fuzz.replica import Broken, Neighbour, replica
from tests.fuzz.run import breaks, fuzz, vectors
from tests.fuzz.targets import TARGETS, Target

SEED = 1

EACH = pytest.mark.parametrize("target", TARGETS, ids=lambda each: each.name)


@EACH
async def test_what_broke_something_once_does_no_more(target: Target) -> None:
    inputs = [file.read_bytes() for file in vectors(target)]

    assert await breaks(target, inputs) == ""


@EACH
async def test_nothing_breaks(target: Target) -> None:
    await fuzz(target, SEED, target.short)


@EACH
def test_a_seed_plays_a_run_again(target: Target) -> None:
    one, other = (Inputs(random.Random(SEED)) for _ in range(2))

    made = [target.make(one) for _ in range(20)]
    if target.name != "tokens":  # they have the time in them
        assert made == [target.make(other) for _ in range(20)]


async def test_a_neighbour_that_is_closed_or_gets_no_message_is_noticed() -> None:
    async with replica() as found, Neighbour(found) as neighbour:
        await neighbour.check()
        for connection in found.gateway._connections.open:
            connection.abort()
        with pytest.raises(Broken):
            await neighbour.check()
