"""``python -m bench``: measure, print the tables, and with ``--write`` put them into the README."""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final

from bench import (
    checks,
    comparison,
    idle,
    live,
    presence,
    publishing,
    report,
    resuming,
    revoking,
    upstream,
)
from bench.options import Options, parse
from bench.proc import Cores

PARTS: Final[dict[str, Callable[[Cores, Options], str]]] = {
    "delivery": comparison.run,
    "presence": presence.run,
    "upstream": upstream.run,
    "idle": idle.run_idle,
    "offline": idle.run_offline,
    "revoke": revoking.run,
    "publish": publishing.run,
    "history": live.run,
    "resume": resuming.run,
    "checks": checks.run,
}
"""What ``--only`` can name; each returns its table."""


def main() -> None:
    """Run the benchmark."""
    options = parse(list(PARTS))
    # so that a SIGTERM, too, ends the servers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cores = Cores.choose()
    os.sched_setaffinity(0, {cores.load})
    for name in options.only:
        text = PARTS[name](cores, options)
        print(text, flush=True)
        if options.write:
            report.write(name, text)


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
