"""Feeds a target, and finds the input that broke it."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.fuzz.inputs import Inputs
from tests.fuzz.replica import Broken
from tests.fuzz.targets import Target

VECTORS = Path(__file__).with_name("vectors")
MEMORY_BYTES = 96 * 2**20
"""By how much this process may grow after the first fifth of a run."""


async def fuzz(
    target: Target, seed: int, size: int, show: Callable[[str], None] = lambda _: None
) -> None:
    """Feed it so many inputs.

    Raises:
        Broken: Something did not hold; its notes have the inputs.
    """
    chance = random.Random(f"{seed} {target.name}")
    inputs = Inputs(chance)
    process = psutil.Process()
    base = 0
    fed = 0
    async with target.open() as feed:
        while fed < size:
            some = [target.make(inputs) for _ in range(min(target.each, size - fed))]
            try:
                await feed(some)
            except Broken as problem:
                problem.add_note(f"{target.name}, seed {seed}, after {fed} inputs")
                problem.add_note("\n".join(each.hex() for each in some))
                raise
            fed += len(some)
            resident = process.memory_info().rss
            if fed * 5 >= size and not base:
                base = resident
            if base and resident > base + MEMORY_BYTES:
                raise Broken(f"{target.name}: {(resident - base) / 2**20:.0f} MiB more memory")
            if fed % (100 * target.each) == 0:
                show(f"{target.name}: {fed:,} of {size:,}, {resident / 2**20:.0f} MiB")


async def guilty(target: Target, some: Sequence[bytes]) -> list[bytes]:
    """The least of some inputs that breaks it; all of them where none does alone."""
    for each in some:
        if await breaks(target, [each]):
            return [each]
    return list(some)


async def breaks(target: Target, some: Sequence[bytes]) -> str:
    """How these break it; empty if they do not."""
    try:
        async with target.open() as feed:
            await feed(some)
    except Broken as problem:
        return str(problem)
    return ""


def vectors(target: Target) -> list[Path]:
    """Files of inputs that once broke it, or looked as if."""
    return sorted((VECTORS / target.name).glob("*.bin"))
