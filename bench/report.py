"""From figures to a table: medians over the rounds, and ratios within a round."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

from bench.scenarios import Figures, Scale
from bench.servers import BASELINE, PAYLOAD_BYTES

README: Final = Path(__file__).parent / "README.md"

RELIABILITY: Final = Path(__file__).parents[1] / "docs/reliability.md"
PAGES: Final = {"abuse": RELIABILITY, "cluster": RELIABILITY.with_name("scaling.md")}
"""The pages whose tables are not in the README, by part."""

_HEAD: Final = (
    f"| server | CPU µs a delivery | user | kernel | ratio to {BASELINE} | KiB a connection |\n"
    "|---|--:|--:|--:|--:|--:|\n"
)

Results = Mapping[str, Sequence[Figures]]
"""Server -> its figures, one entry a round."""


def table(results: Results, scale: Scale, rounds: int) -> str:
    """The report as Markdown."""
    lines = [_HEAD, *(_row(name, results) for name in results)]
    lines.append(
        f"\n{scale.connections:,} connections, {PAYLOAD_BYTES} byte payload, medians of {rounds} "
        f"{'round' if rounds == 1 else 'rounds'}, {scale.broadcasts * scale.connections:,} deliveries"
        f" each; in brackets the lowest and highest ratio of a round.\n"
    )
    return "".join(lines)


def _row(name: str, results: Results) -> str:
    rounds = results[name]

    def middle(figure: str) -> float:
        return median(figures[figure] for figures in rounds)

    return (
        f"| {name} | {middle('cpu_us'):.2f} | {middle('user_us'):.2f} | {middle('kernel_us'):.2f} "
        f"| {_ratio(name, results)} | {middle('resident_kib'):.1f} |\n"
    )


def _ratio(name: str, results: Results) -> str:
    """CPU of a delivery beside the baseline's of the same round."""
    if BASELINE not in results:
        return "-"
    mine, base = ([figures["cpu_us"] for figures in results[each]] for each in (name, BASELINE))
    return ratio(mine, base)


def ratio(values: Sequence[float], bases: Sequence[float]) -> str:
    """Of figures to others of the same rounds: median, lowest and highest."""
    if min(bases) <= 0:
        return "-"
    ratios = [value / base for value, base in zip(values, bases, strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def write(name: str, text: str, path: Path = README) -> None:
    """Put a table between its markers in a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = path.read_text()
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        sys.exit(f"{path.name} lacks {begin} or {end}")
    path.write_text(f"{before}{begin}\n{text}{end}{after}")
