"""What runs have found: kept as JSON, and the medians, ratios and spreads of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, Self

from bench.report import ratio
from bench.scenarios import Figures

FLOOR: Final = "floor"


@dataclass
class Run:
    """One scenario of one server in one round; its figures by case."""

    scenario: str
    server: str
    round: int
    cases: Mapping[str, Figures] = field(default_factory=dict)


@dataclass
class Results:
    """All of a run of the benchmark.

    Attributes:
        command: What made it.
        skipped: Servers that were not measured, with what would have to be done.
        failed: Scenario and server that did not come to an end, with the reason.
        seconds: How long it took.
    """

    command: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    seconds: float = 0.0

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """What :meth:`document` made."""
        runs = [Run(**each) for each in document["runs"]]
        failed = {(each["scenario"], each["server"]): each["why"] for each in document["failed"]}
        return cls(**{**document, "runs": runs, "failed": failed})

    def document(self) -> dict[str, Any]:
        """As JSON."""
        failed = [
            {"scenario": scenario, "server": server, "why": why}
            for (scenario, server), why in self.failed.items()
        ]
        runs = [vars(run) for run in self.runs]
        return {**vars(self), "runs": runs, "failed": failed}

    def servers(self, scenario: str) -> list[str]:
        """Who went through it, in the order of the tables."""
        found = {run.server for run in self.runs if run.scenario == scenario}
        return [name for name in self.versions if name in found]

    def cases(self, scenario: str) -> list[str]:
        """The cases of a scenario, in their order."""
        return list(dict.fromkeys(case for run in self._of(scenario) for case in run.cases))

    def rounds(self, scenario: str, server: str, case: str, figure: str) -> dict[int, float]:
        """A figure, by round."""
        return {
            run.round: run.cases[case][figure]
            for run in self._of(scenario)
            if run.server == server and figure in run.cases.get(case, {})
        }

    def median(self, scenario: str, server: str, case: str, figure: str) -> float | None:
        """The median over the rounds; None where nothing was measured."""
        values = self.rounds(scenario, server, case, figure).values()
        return median(values) if values else None

    def sum(self, scenario: str, server: str, case: str, figure: str) -> float:
        """Of all rounds together: what must not be hidden by a median."""
        return sum(self.rounds(scenario, server, case, figure).values())

    def ratio(self, scenario: str, server: str, case: str, figure: str, to: str = FLOOR) -> str:
        """To another server's of the same rounds: median, lowest, highest."""
        mine = self.rounds(scenario, server, case, figure)
        theirs = self.rounds(scenario, to, case, figure)
        both = sorted(mine.keys() & theirs.keys())
        if not both:
            return "-"
        return ratio([mine[each] for each in both], [theirs[each] for each in both])

    def _of(self, scenario: str) -> Sequence[Run]:
        return [run for run in self.runs if run.scenario == scenario]
