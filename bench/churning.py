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
from bench.servers.gateway import EquippedGateway

SOCKETS: Final = 18_000
WAVES: Final = 6
"""Each is gone when the next one is there."""

IDLE_SECONDS: Final = 60.0
"""``limits.idle_timeout_seconds``; no socket is there for so long."""

SOON_SECONDS: Final = 5.0
LATER_SECONDS: Final = IDLE_SECONDS + 5.0
"""After the last socket's end: now no timer of any of them can be left."""

_KINDS: Final = {"waves": f"in {WAVES} waves", "crowd": "all there at once"}


def run(cores: Cores, options: Options, builds: Sequence[Build]) -> str:
    """Measure; returns the table."""
    sockets = 1200 if options.quick else SOCKETS
    rows = {}
    for kind, label in _KINDS.items():
        rows[f"{kind}_before_mb"] = Row(f"resident MB before, {label}", 1)
        rows[f"{kind}_peak_mb"] = Row("— with the most of them there", 1)
        rows[f"{kind}_soon_mb"] = Row(f"— {SOON_SECONDS:.0f} s after the last one went", 1)
        rows[f"{kind}_later_mb"] = Row(f"— {SOON_SECONDS + LATER_SECONDS:.0f} s after", 1)
        rows[f"{kind}_left"] = Row("— of that before, soon after")
    return compare(
        rows,
        lambda build: (
            churn("waves", build, cores, sockets, sockets // WAVES)
            | churn("crowd", build, cores, sockets, sockets)
        ),
        builds,
        options,
        f"{sockets:,} sockets connect, join a topic of their own, and leave",
    )


def churn(kind: str, build: Build, cores: Cores, sockets: int, wave: int) -> Figures:
    """Resident memory before, meanwhile, and afterwards; ``left`` is what it has become at the end."""
    server = EquippedGateway(build, alone=True, idle_seconds=IDLE_SECONDS)
    with ServerProcess(server, cores) as process, Load(server) as load:
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
        time.sleep(LATER_SECONDS)
        later = process.resident_bytes()
    return {
        f"{kind}_before_mb": before / 1e6,
        f"{kind}_peak_mb": peak / 1e6,
        f"{kind}_soon_mb": soon / 1e6,
        f"{kind}_later_mb": later / 1e6,
        f"{kind}_left": soon / before,
    }
