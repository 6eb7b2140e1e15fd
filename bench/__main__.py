"""``python -m bench``: measure, print the tables, and with ``--write`` put them into the README."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from bench import (
    abuse,
    asking,
    breakdown,
    checks,
    churning,
    comparison,
    compression,
    connecting,
    console,
    event_streams,
    fragments,
    idle,
    live,
    memory,
    polling,
    presence,
    publishing,
    pushing,
    report,
    resuming,
    revoking,
    upstream,
    workers,
)
from bench.builds import Build, builds
from bench.cluster import table as cluster
from bench.options import Options, parse
from bench.proc import Cores

PARTS: Final[dict[str, Callable[[Cores, Options], str]]] = {
    "delivery": comparison.run,
    "presence": presence.run,
    "upstream": upstream.run,
    "idle": idle.run_idle,
    "offline": idle.run_offline,
    "topics": asking.run,
    "revoke": revoking.run,
    "publish": publishing.run,
    "history": live.run,
    "resume": resuming.run,
    "checks": checks.run,
    "console": console.run,
    "fragments": fragments.run,
    "compression": compression.run,
    "sse": event_streams.run,
    "abuse": abuse.run,
    "workers": workers.run,
    "cluster": cluster.run,
}
"""What ``--only`` can name; each returns its table."""

COMPARABLE: Final[dict[str, Callable[[Cores, Options, Sequence[Build]], str]]] = {
    "memory": memory.run,
    "breakdown": breakdown.run,
    "push": pushing.run,
    "connect": connecting.run,
    "delivery": comparison.run_beside,
    "presence": presence.run_beside,
    "resume": resuming.run_beside,
    "churn": churning.run,
    "polls": polling.run,
}
"""The same with ``--beside``; those that are not above are measured without it, too."""


def main() -> None:
    """Run the benchmark."""
    options = parse(list(PARTS | COMPARABLE), list(COMPARABLE))
    # so that a SIGTERM, too, ends the servers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each client has a descriptor
    cores = Cores.choose()
    os.sched_setaffinity(0, {cores.load})
    with builds(options.beside) as found:
        for name in options.only:
            marker = name
            if name in PARTS and not options.beside:
                text = PARTS[name](cores, options)
            else:
                text = COMPARABLE[name](cores, options, found)
                marker = f"beside {name}"
            print(text, flush=True)
            if options.write:
                report.write(marker, text, report.PAGES.get(name, report.README))


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"took {time.monotonic() - started:.0f} s", file=sys.stderr)
