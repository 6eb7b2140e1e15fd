"""``python -m tests.fuzz``: the full run; see ``--help``."""

import argparse
import asyncio
import functools
import random
import sys
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import uvloop

from tests.fuzz.replica import Broken
from tests.fuzz.run import VECTORS, fuzz, guilty
from tests.fuzz.targets import TARGETS, Target

T = TypeVar("T")


def main() -> int:
    """Feed all targets; 1 if any broke."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--only", default="", help="targets whose name has this in it")
    parser.add_argument("--share", type=float, default=1.0, help="of the inputs of a full run")
    parser.add_argument("--keep", action="store_true", help="keep what broke something as a vector")
    options = parser.parse_args()
    broken = False
    for target in TARGETS:
        if options.only in target.name:
            size = max(target.each, int(target.size * options.share))
            broken |= not _run(target, options.seed, size, keep=options.keep)
    return int(broken)


def _play(what: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(what)


def _run(target: Target, seed: int, size: int, *, keep: bool) -> bool:
    show = functools.partial(print, flush=True)
    started = time.monotonic()
    try:
        _play(fuzz(target, seed, size, show))
    except Broken as problem:
        print(f"{target.name} broke, seed {seed}: {problem}", flush=True)
        notes = getattr(problem, "__notes__", ["", ""])
        some = [bytes.fromhex(line) for line in notes[-1].split()]
        found = _play(guilty(target, some))
        for number, each in enumerate(found):
            print(f"  {each!r}"[:400])
            if keep:
                folder = VECTORS / target.name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{seed}-{number}.bin").write_bytes(each)
        return False
    print(
        f"{target.name}: {size:,} inputs in {time.monotonic() - started:.0f} s, seed {seed}",
        flush=True,
    )
    return True


sys.exit(main())
