"""Measures builds of the gateway by turns, and shows their figures beside each other."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.builds import Build
from bench.options import Options
from bench.report import ratio
from bench.scenarios import Figures

ROUNDS: Final = 3


@dataclass(frozen=True)
class Row:
    """How a figure is shown.

    Attributes:
        label: What it is, with its unit.
        digits: Behind the point.
    """

    label: str
    digits: int = 2


def compare(
    rows: Mapping[str, Row],
    measure: Callable[[Build], Figures],
    builds: Sequence[Build],
    options: Options,
    note: str,
) -> str:
    """Measure each build once a round, by turns; returns the table.

    Args:
        rows: By the names of the figures, in their order.
        measure: One round of one build, with a server of its own.
        note: What a reader of the table must know, as a sentence without its period.
    """
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    results: dict[Build, list[Figures]] = {build: [] for build in builds}
    for number in range(rounds):
        # each round begins with another build, so that none always comes first
        shift = number % len(builds)
        for build in (*builds[shift:], *builds[:shift]):
            figures = measure(build)
            results[build].append(figures)
            shown = "  ".join(f"{name} {value:.2f}" for name, value in figures.items())
            print(
                f"round {number + 1}/{rounds}  {build.name}  {shown}", file=sys.stderr, flush=True
            )
    return _table(rows, results, f"{note}; {_medians(rounds, len(builds))}.")


def _table(rows: Mapping[str, Row], results: Mapping[Build, Sequence[Figures]], note: str) -> str:
    names = [build.name for build in results] if len(results) > 1 else ["median"]
    columns = [*names, "ratio"] if len(results) > 1 else [*names, "lowest", "highest"]
    lines = [
        f"| figure | {' | '.join(columns)} |\n",
        f"|---|{'--:|' * len(columns)}\n",
        *(_row(name, row, list(results.values())) for name, row in rows.items()),
    ]
    return f"{''.join(lines)}\n{note}\n"


def _row(name: str, row: Row, results: Sequence[Sequence[Figures]]) -> str:
    values = [[figures[name] for figures in rounds] for rounds in results]
    cells = [_number(median(each), row) for each in values]
    if len(values) == 1:
        cells += [_number(min(values[0]), row), _number(max(values[0]), row)]
    else:
        cells.append(ratio(values[1], values[0]))
    return f"| {row.label} | {' | '.join(cells)} |\n"


def _number(value: float, row: Row) -> str:
    return f"{value:,.{row.digits}f}"


def _medians(rounds: int, builds: int) -> str:
    text = f"medians of {rounds} {'round' if rounds == 1 else 'rounds'}"
    ratios = ", and of the ratios within a round; in brackets the lowest and highest of these"
    return text + ratios if builds > 1 else text
