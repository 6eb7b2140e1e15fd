"""``python -m tests.faults``: every fault, and with ``--write`` the table of docs/reliability.md."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.report import RELIABILITY, write
from tests.faults.crowd import move
from tests.faults.report import deploy, table
from tests.faults.run import Outcome, play
from tests.faults.table import FAULTS, Fault


async def _outcomes(faults: Sequence[Fault], directory: Path) -> list[Outcome]:
    found = []
    async for outcome in play(faults, directory):
        print(table([outcome]).splitlines()[-1], flush=True)
        for problem in outcome.problems:
            print(f"  {problem}", flush=True)
        found.append(outcome)
    return found


def main() -> int:
    """Play the faults; 1 if any broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument(
        "--write", action="store_true", help=f"put the table into {RELIABILITY.name}"
    )
    parser.add_argument(
        "--crowd", type=int, default=10_000, help="sockets that a deploy moves; 0: none"
    )
    parser.add_argument(
        "--window", type=float, default=25.0, help="seconds in which they are moved"
    )
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault.name]
    directory = Path(tempfile.mkdtemp(prefix="gateway-faults-"))
    print(f"{len(faults)} faults; logs in {directory}", flush=True)
    outcomes = asyncio.run(_outcomes(faults, directory))
    texts = {"faults": table(outcomes)} if outcomes else {}
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    if options.crowd:
        moved = asyncio.run(move(options.crowd, options.window, directory / "crowd"))
        texts["deploy"] = deploy(moved)
        problems += moved.problems
    for name, text in texts.items():
        print(text)
        if options.write:
            write(name, text, RELIABILITY)
    print("\n".join(problems))
    if problems:
        return 1
    shutil.rmtree(directory)
    return 0


sys.exit(main())
