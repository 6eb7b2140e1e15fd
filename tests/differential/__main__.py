"""``python -m tests.differential URL``: plays random sequences at a Phoenix server and at a gateway.

What differs is shrunk. The server has the channels of ``tests/differential/reference.exs``; URL is that
of its socket, as ``http://127.0.0.1:4000/socket``.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.differential.comparing import Difference, compare, shrink
from tests.differential.gateway import conforming
from tests.differential.playing import Live
from tests.differential.sequences import Step, sequence

RECORDINGS = Path(__file__).parent / "recordings"


async def record(url: str, name: str, seeds: range, settle: float) -> None:
    """Write what clients of a server see."""
    plays = []
    for seed in seeds:
        play = sequence(seed)
        seen = []
        async with Live(url, play["clients"], settle) as live:
            for step in play["steps"]:
                await live.do(step)
                seen.append(live.seen())
        plays.append(json.dumps(play | {"seen": seen}, ensure_ascii=False))
        print(f"seed {seed}: {len(seen)} steps", flush=True)
    RECORDINGS.mkdir(exist_ok=True)
    (RECORDINGS / f"{name}.json").write_text("[\n" + ",\n".join(plays) + "\n]\n")


async def minimal(url: str, ours: str, play: dict[str, Any], settle: float) -> list[Difference]:
    """What differs, after as few steps as lead to it; empty if nothing does."""
    found: list[Difference] = []

    async def fails(steps: list[Step]) -> bool:
        part = play | {"steps": steps}
        sides = Live(url, play["clients"], settle), Live(ours, play["clients"])
        differing = await compare(part, *sides, set())
        found[:] = differing or found
        return bool(differing)

    if await fails(play["steps"]):
        play["steps"] = await shrink(play["steps"][: found[0].index + 1], fails)
    return found


async def live(url: str, ours: str, seeds: range, settle: float) -> int:
    """Play all; returns how many sequences differed."""
    failed = 0
    for seed in seeds:
        play = sequence(seed)
        found = await minimal(url, ours, play, settle)
        print(f"seed {seed}: {'differs' if found else 'ok'}", flush=True)
        if found:
            failed += 1
            print(*map(json.dumps, play["steps"]), *found, sep="\n", flush=True)
    return failed


def main() -> int:
    """1 if anything differed."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--record", metavar="NAME", help="write recordings/NAME.json instead")
    parser.add_argument("--gateway", metavar="URL", help="of one with the rules of gateway.py")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--settle", type=float, default=0.1, help="seconds to wait after each step")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.count)
    if options.record:
        asyncio.run(record(options.url, options.record, seeds, options.settle))
        return 0
    if options.gateway:
        return int(asyncio.run(live(options.url, options.gateway, seeds, options.settle)) > 0)
    with tempfile.TemporaryDirectory() as folder, conforming(Path(folder)) as ours:
        return int(asyncio.run(live(options.url, ours, seeds, options.settle)) > 0)


if __name__ == "__main__":
    sys.exit(main())
