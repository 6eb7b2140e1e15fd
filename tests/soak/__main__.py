"""``python -m tests.soak``: the soak, or with ``--churn SECONDS`` one that looks for leaks."""

import argparse
import asyncio
import functools
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.soak.churn import churn
from tests.soak.run import FULL, Report, soak


def main() -> int:
    """Run soaks until one fails, or as many as are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--clients", type=int, default=FULL.clients)
    parser.add_argument("--topics", type=int, default=FULL.topics)
    parser.add_argument("--each", type=int, help="topics of each client (default: all)")
    parser.add_argument("--rate", type=float, default=FULL.rate, help="messages per second")
    parser.add_argument("--seconds", type=float, default=FULL.seconds)
    parser.add_argument(
        "--churn", type=float, metavar="SECONDS", help="clients come and go for so long"
    )
    options = parser.parse_args()
    size = FULL._replace(
        clients=options.clients,
        topics=options.topics,
        each=options.each or options.topics,
        rate=options.rate,
        seconds=options.seconds,
    )
    directory = Path(tempfile.mkdtemp(prefix="gateway-soak-"))
    if options.churn:
        print(f"seed {options.seed}; {options.churn:g} s; logs in {directory}", flush=True)
        show = functools.partial(print, flush=True)
        return _judge(asyncio.run(churn(options.churn, options.seed, directory, show)), directory)
    node = shutil.which("node")
    if node is None:
        sys.exit("Node.js is missing; install it with npm, for example: apt-get install nodejs npm")
    print(f"seed {options.seed}; {size}; logs in {directory}", flush=True)
    return _judge(asyncio.run(soak(size, options.seed, directory, node)), directory)


def _judge(report: Report, directory: Path) -> int:
    print("\n".join(report.summary))
    if report.problems:
        print(f"\n{len(report.problems)} problems\n")
        print("\n\n".join(report.problems))
        return 1
    shutil.rmtree(directory)
    print("all is well")
    return 0


sys.exit(main())
