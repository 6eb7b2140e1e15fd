"""The pictures of docs/performance.md. It knows nothing of the project, and runs where matplotlib is.

python plots.py RESULTS.json FOLDER
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

OURS, OTHERS = "#3f51b5", "#b0bec5"
LINES = ("#3f51b5", "#e65100", "#2e7d32", "#6a1b9a", "#00838f", "#c62828", "#795548", "#546e7a")
Values = dict[str, list[float]]


class Pictures:
    """Of one run."""

    def __init__(self, document: dict[str, Any], folder: Path) -> None:
        self._folder = folder
        self._servers = list(document["versions"])
        self._settings = document["settings"]
        self._found: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
        for run in document["runs"]:
            for case, figures in run["cases"].items():
                for figure, value in figures.items():
                    self._found[run["scenario"], case, run["server"], figure].append(value)

    def values(self, scenario: str, case: str, figure: str) -> Values:
        """By server, in the order of the tables."""
        found = {
            name: self._found.get((scenario, case, name, figure), []) for name in self._servers
        }
        return {name: values for name, values in found.items() if values}

    def draw(self) -> None:
        """All of them."""
        rates = [f"{rate:g}" for rate in self._settings["rates"]]
        cost = {
            f"{rate} messages a second": self.values("fanout", rate, "cpu_us") for rate in rates
        }
        self.bars("performance-cost", "CPU µs of a delivery", cost)
        waits = {
            f"{rate} messages a second": self.values("fanout", rate, "p99_ms") for rate in rates
        }
        self.bars(
            "performance-latency",
            "ms until a client has a message, 99th percentile",
            waits,
            log=True,
        )
        joining = {
            "CPU ms of a connect": self.values("connect", "storm", "cpu_ms"),
            "KiB of memory a client": self.values("fanout", "memory", "kib"),
            "longest wait for a heartbeat, ms": self.values("connect", "storm", "heartbeat_ms"),
        }
        self.bars("performance-connect", "", joining)
        self.lines()

    def bars(self, name: str, label: str, panels: dict[str, Values], *, log: bool = False) -> None:
        """Horizontal bars, the spread of the rounds on each."""
        panels = {title: values for title, values in panels.items() if values}
        if not panels:
            return
        rows = max(len(values) for values in panels.values())
        figure, axes = plt.subplots(
            1, len(panels), figsize=(3.4 * len(panels), 0.8 + 0.32 * rows), squeeze=False
        )
        for axis, (title, values) in zip(axes[0], panels.items(), strict=True):
            names, middles = list(values), [median(each) for each in values.values()]
            spread = [
                [middle - min(each) for middle, each in zip(middles, values.values(), strict=True)],
                [max(each) - middle for middle, each in zip(middles, values.values(), strict=True)],
            ]
            colours = [OURS if each == "gateway" else OTHERS for each in names]
            bars = axis.barh(
                names, middles, color=colours, xerr=spread, ecolor="#37474f", capsize=2
            )
            axis.bar_label(bars, [f" {middle:.3g}" for middle in middles], fontsize=8, padding=4)
            axis.invert_yaxis()
            axis.set_title(title, fontsize=9)
            axis.tick_params(labelsize=8)
            axis.set_xscale("log" if log else "linear")
            axis.margins(x=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        figure.supxlabel(label, fontsize=9)
        self._save(figure, name)

    def lines(self) -> None:
        """Cost of a delivery over the number of subscribers."""
        sizes = [
            size for size in self._settings["sizes"] if self.values("sizes", f"{size}", "cpu_us")
        ]
        if not sizes:
            return
        figure, axis = plt.subplots(figsize=(6, 3))
        for colour, name in zip(LINES, self.values("sizes", f"{sizes[0]}", "cpu_us"), strict=False):
            found = [self.values("sizes", f"{size}", "cpu_us").get(name, []) for size in sizes]
            points = [(size, each) for size, each in zip(sizes, found, strict=True) if each]
            xs = [size for size, _ in points]
            axis.plot(xs, [median(each) for _, each in points], "o-", color=colour, label=name)
            axis.fill_between(
                xs,
                [min(e) for _, e in points],
                [max(e) for _, e in points],
                color=colour,
                alpha=0.15,
            )
        axis.set_xlabel("subscribers of one topic", fontsize=9)
        axis.set_ylabel("CPU µs of a delivery", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=8)
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
        self._save(figure, "performance-sizes")

    def _save(self, figure: Any, name: str) -> None:
        figure.tight_layout()
        # without the version of what drew it, the same figures make the same file
        figure.savefig(self._folder / f"{name}.png", dpi=110, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    Pictures(json.loads(Path(sys.argv[1]).read_text()), folder).draw()
