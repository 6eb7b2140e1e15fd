"""``python -m tests.soak``: the long soak; see ``--help``."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.run import FULL, soak


def main() -> int:
    """Run soaks until one fails, or as many as are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--clients", type=int, default=FULL.clients)
    parser.add_argument("--topics", type=int, default=FULL.topics)
    parser.add_argument("--each", type=int, help="topics of each client (default: all)")
    parser.add_argument("--rate", type=float, default=FULL.rate, help="messages per second")
    parser.add_argument("--seconds", type=float, default=FULL.seconds)
    options = parser.parse_args()
    size = FULL._replace(
        clients=options.clients,
        topics=options.topics,
        each=options.each or options.topics,
        rate=options.rate,
        seconds=options.seconds,
    )
    node = shutil.which("node")
    if node is None:
        sys.exit("Node.js is missing; install it with npm, for example: apt-get install nodejs npm")
    directory = Path(tempfile.mkdtemp(prefix="gateway-soak-"))
    print(f"seed {options.seed}; {size}; logs in {directory}", flush=True)
    report = asyncio.run(soak(size, options.seed, directory, node))
    print("\n".join(report.summary))
    if report.problems:
        print(f"\n{len(report.problems)} problems; again with --seed {options.seed}\n")
        print("\n\n".join(report.problems))
        return 1
    shutil.rmtree(directory)
    print("every message came once and in order, to everybody")
    return 0


sys.exit(main())
