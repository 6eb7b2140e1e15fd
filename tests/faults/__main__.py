"""``python -m tests.faults``: every fault, and with ``--write`` the table of docs/reliability.md."""

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.report import RELIABILITY, write
from tests.faults.report import table
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
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault.name]
    directory = Path(tempfile.mkdtemp(prefix="gateway-faults-"))
    print(f"{len(faults)} faults; logs in {directory}", flush=True)
    outcomes = asyncio.run(_outcomes(faults, directory))
    text = table(outcomes)
    print(text)
    if options.write:
        write("faults", text, RELIABILITY)
    if any(outcome.problems for outcome in outcomes):
        return 1
    shutil.rmtree(directory)
    return 0


sys.exit(main())
