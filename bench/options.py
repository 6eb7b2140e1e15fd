"""What the command line can say."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from bench.abusers import ABUSES
from bench.servers import SERVERS


@dataclass(frozen=True)
class Options:
    """How a run is to be.

    Attributes:
        only: Names of the parts to measure.
        beside: A commit whose gateway is measured beside the working tree's; None for none.
        quick: Few clients and one round: does it work.
        servers: Names of the servers of the part ``delivery``.
        connections: Clients of the parts ``delivery`` and ``idle``.
        members: The numbers of members of the part ``presence``.
        samples: How many clients of ``presence`` are examined to the last byte.
        rounds: How often each is measured; None for what is usual.
        abuses: Those of the part ``abuse``; empty for all.
        write: Whether the tables go into the README, or into the page of ``docs/`` that has them.
    """

    only: Sequence[str]
    beside: str | None
    quick: bool
    servers: Sequence[str]
    connections: int
    members: Sequence[int]
    samples: int
    rounds: int | None
    abuses: Sequence[str]
    write: bool


def parse(parts: Sequence[str], comparable: Sequence[str]) -> Options:
    """Read the command line.

    Args:
        parts: The names of all that can be measured.
        comparable: Of those, what can be measured of another commit, too.
    """
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Gateway.")
    parser.add_argument(
        "--only",
        type=_names(parts),
        help=f"of {', '.join(parts)}, with commas; all where none is named",
    )
    parser.add_argument(
        "--beside",
        metavar="COMMIT",
        help=f"measure the gateway of a commit, too, by turns: {', '.join(comparable)}",
    )
    parser.add_argument("--quick", action="store_true", help="few clients, one round: does it work")
    parser.add_argument(
        "--servers", type=_names(list(SERVERS)), default=list(SERVERS), help="names, with commas"
    )
    parser.add_argument("--connections", type=_positive, default=2000)
    parser.add_argument(
        "--members", type=_numbers, default=[500, 1000, 2000], help="numbers, with commas"
    )
    parser.add_argument("--samples", type=_positive, default=20)
    parser.add_argument("--rounds", type=_positive)
    parser.add_argument(
        "--abuses", type=_names(list(ABUSES)), default=[], help="names, with commas"
    )
    parser.add_argument("--write", action="store_true", help="put the tables into the documents")
    found = parser.parse_args()
    measurable = comparable if found.beside else parts
    found.only = found.only or measurable
    if alone := [name for name in found.only if name not in measurable]:
        parser.error(f"--beside is not for {', '.join(alone)}")
    return Options(**vars(found))


class _names:  # noqa: N801 -- argparse names it in its message
    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in self._known]:
            raise argparse.ArgumentTypeError(
                f"unknown: {', '.join(unknown)}; there are {', '.join(self._known)}"
            )
        return names


def _numbers(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number
