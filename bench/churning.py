"""The part ``churn``: whether memory comes back when many thousand sockets have come and gone."""

import time
from collections.abc import Sequence
from typing import Final

from bench.beside import Row, compare
from bench.builds import Build
from bench.load import Load
from bench.options import Options
from bench.proc import Cores, ServerProcess
from bench.scenarios import Figures
from bench.servers.counted import CountedGateway

SOCKETS: Final = 18_000
WAVES: Final = 6
"""Each is gone when the next one is there."""

IDLE_SECONDS: Final = 60.0
"""``limits.idle_timeout_seconds``; no socket is there for so long."""

SOON_SECONDS: Final = 5.0
"""After the last socket's end; when the idle timeout has passed, too, no timer of any can be left."""

_KINDS: Final = {"waves": f"in {WAVES} waves", "crowd": "all there at once"}


def run(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure; returns the table."""
    sockets = 1200 if options.quick else SOCKETS
    idle_seconds = 20.0 if options.quick else IDLE_SECONDS
    rows: dict[str, Row] = {}
    for kind, label in _KINDS.items():
        rows |= {
            f"{kind}_before_mb": Row(f"{label}: resident MB before", 1),
            f"{kind}_peak_mb": Row("— with the most of them there", 1),
            f"{kind}_soon_mb": Row(f"— {SOON_SECONDS:.0f} s after the last one went", 1),
            f"{kind}_collected_mb": Row("— then, garbage collected", 1),
            f"{kind}_later_mb": Row(f"— {idle_seconds + SOON_SECONDS:.0f} s later", 1),
            f"{kind}_left": Row("— garbage collected, to before"),
            f"{kind}_before_blocks": Row(f"{label}: thousand blocks in use before", 1),
            f"{kind}_soon_blocks": Row(f"— {SOON_SECONDS:.0f} s after the last one went", 1),
            f"{kind}_later_blocks": Row(f"— {idle_seconds + SOON_SECONDS:.0f} s later", 1),
        }
    return compare(
        rows,
        lambda build: (
            churn("waves", build, cores, sockets, sockets // WAVES, idle_seconds=idle_seconds)
            | churn("crowd", build, cores, sockets, sockets, idle_seconds=idle_seconds)
        ),
        builds,
        options,
        f"{sockets:,} sockets connect, join a topic of their own, and leave",
    )


def churn(
    kind: str, build: Build, cores: Cores, sockets: int, wave: int, *, idle_seconds: float
) -> Figures:
    """Memory before, meanwhile, and afterwards.

    Resident memory may stay though nothing is kept in it, where other things lie in between; so the
    blocks that Python has in use are counted, too.
    """
    server = CountedGateway(build, alone=True, idle_seconds=idle_seconds)
    with ServerProcess(server, cores) as process, Load(server) as load:
        before_blocks = server.blocks()
        before = process.resident_bytes()
        load.join(wave)
        peak = process.resident_bytes()
        for _ in range(sockets // wave - 1):
            load.join(2 * wave)
            peak = max(peak, process.resident_bytes())
            load.leave(wave)
        load.leave(wave)
        time.sleep(SOON_SECONDS)
        soon = process.resident_bytes()
        soon_blocks = server.blocks()
        collected = process.resident_bytes()
        time.sleep(idle_seconds + SOON_SECONDS)
        later_blocks = server.blocks()
        later = process.resident_bytes()
    figures = {
        "before_mb": before / 1e6,
        "peak_mb": peak / 1e6,
        "soon_mb": soon / 1e6,
        "collected_mb": collected / 1e6,
        "later_mb": later / 1e6,
        "left": collected / before,
        "before_blocks": before_blocks / 1e3,
        "soon_blocks": soon_blocks / 1e3,
        "later_blocks": later_blocks / 1e3,
    }
    return {f"{kind}_{name}": value for name, value in figures.items()}
