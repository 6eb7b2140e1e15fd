"""Results as the tables of docs/performance.md."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from bench.performance.alone import LABELS
from bench.performance.crowd import GRACE_SECONDS
from bench.performance.results import FLOOR, Results
from bench.report import write as write_block
from bench.waiting import LEAST_SHARE

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs/performance.md"
PICTURES: Final = ROOT / "docs/pictures"
RESULTS: Final = ROOT / "bench/performance.json"

GATEWAY: Final = "gateway"
CENTRIFUGO: Final = "centrifugo"
IN_TURN: Final = "in turn"
MEMORY: Final = "memory"

_COUNTS: Final = {
    "lost": "lost",
    "late": "late",
    "repeated": "too many",
    "closed": "clients closed",
    "refused": "publishes refused",
}

_LEFT_OUT: Final = "This run left it out.\n"


def write(name: str, text: str) -> None:
    """Put a block into the page."""
    write_block(f"performance {name}", text, PAGE)


def blocks(results: Results) -> dict[str, str]:
    """The text of each block, by its name."""
    made = {
        "run": _run(results),
        "fanout": _fanout(results),
        "latency": _latency(results),
        "losses": _losses(results),
        "connect": _connect(results),
        "sizes": _sizes(results),
        "topics": _topics(results),
        "alone": _alone(results),
    }
    # of what this run left out, there is a table's head and nothing in it
    return {
        name: text if "|\n| " in text or name == "losses" else _LEFT_OUT
        for name, text in made.items()
    }


def _run(results: Results) -> str:
    machine = results.machine
    skipped = "; ".join(f"{name} ({todo})" for name, todo in results.skipped.items())
    failed = "; ".join(f"{name} in {part}: {why}" for (part, name), why in results.failed.items())
    lines = [
        (
            f"`{results.command}` on {machine['day']}: {results.seconds / 60:.0f} minutes. "
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}, Linux "
            f"{machine['kernel']}; load before the run {machine['load']}."
        ),
        "",
        _table(["server", "version"], [[name, text] for name, text in results.versions.items()], 1),
    ]
    if "--quick" in results.command:
        lines += ["**A short run, to see that it works: its figures mean nothing.**", ""]
    if skipped:
        lines += [f"Not measured: {skipped}.", ""]
    if failed:
        lines += [f"Did not come to an end: {failed}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _rates(results: Results) -> list[str]:
    return [case for case in results.cases("fanout") if case not in (IN_TURN, MEMORY)]


def _fanout(results: Results) -> str:
    rates = _rates(results)
    head = ["server", "in turn", *(f"{rate}/s" for rate in rates), "calm, to the floor"]
    head += ["deliveries of a CPU second, at the highest rate"]
    rows = []
    for server in results.servers("fanout"):
        cells = [_number(results, "fanout", server, case, "cpu_us") for case in [IN_TURN, *rates]]
        most = results.median("fanout", server, rates[-1], "cpu_us") if rates else None
        rows.append(
            [
                server,
                *cells,
                results.ratio("fanout", server, rates[0], "cpu_us") if rates else "-",
                f"{1e6 / most:,.0f}" if most else "-",
            ]
        )
    subscribers = results.settings["subscribers"]
    return (
        _table(head, rows)
        + f"\nCPU µs of a delivery. {subscribers:,} subscribers, 128 byte payload, "
        f"{results.settings['seconds']:g} s at each rate; {_medians(results, 'fanout')}.\n"
    )


def _latency(results: Results) -> str:
    rates = _rates(results)
    head = ["server"]
    for rate in rates:
        head += [f"{rate}/s: p50", "p99", "longest"]
    head.append("deliveries a second, at most")
    rows = []
    for server in results.servers("fanout"):
        cells = [
            _number(results, "fanout", server, rate, figure, digits=0)
            for rate in rates
            for figure in ("p50_ms", "p99_ms", "most_ms")
        ]
        rows.append([server, *cells, _most(results, server, rates)])
    return (
        _table(head, rows)
        + "\nms from when a message was due to when a client had it. Deliveries a second are those of the "
        "rate at which there were most; a bracket says that the clients were busy nearly all the time, so "
        "that the server may be capable of more.\n"
    )


def _most(results: Results, server: str, rates: Sequence[str]) -> str:
    found = []
    for rate in rates:
        deliveries = results.median("fanout", server, rate, "deliveries")
        seconds = results.median("fanout", server, rate, "seconds")
        waited = results.median("fanout", server, rate, "waited")
        if deliveries and seconds and waited is not None:
            found.append((deliveries / seconds, waited))
    if not found:
        return "-"
    most, waited = max(found)
    return f"{most:,.0f}" if waited >= LEAST_SHARE else f"({most:,.0f})"


def _losses(results: Results) -> str:
    """Everything that did not go as it should, summed up and not averaged."""
    rows = []
    for scenario in ("fanout", "sizes", "topics"):
        for server in results.servers(scenario):
            for case in results.cases(scenario):
                counts = [results.sum(scenario, server, case, name) for name in _COUNTS]
                if any(counts):
                    expected = results.sum(scenario, server, case, "expected")
                    label = {"fanout": f"{case}/s", "sizes": f"{case} subscribers"}
                    rows.append(
                        [f"{server}, {label.get(scenario, 'small topics')}", f"{expected:,.0f}"]
                        + [f"{count:,.0f}" for count in counts]
                    )
    if not rows:
        return f"Nothing was lost, late, or too much, and nobody was closed. {_load(results)}\n"
    return (
        _table(["server", "should be delivered", *_COUNTS.values()], rows)
        + f"\nAll rounds together; servers and rates that do not stand here had nothing of it. Late is more "
        f"than a second; lost is what had not come {GRACE_SECONDS:g} seconds after the last message. "
        f"{_load(results)}\n"
    )


def _load(results: Results) -> str:
    """What the load says of itself."""
    late = [
        value
        for server in results.servers("fanout")
        for case in _rates(results)[:1]
        for value in results.rounds("fanout", server, case, "unpunctual_ms").values()
    ]
    if not late:
        return ""
    return (
        f"The publisher was punctual within {median(late):.1f} ms when it was calm (99 % of the messages, "
        f"the median of all servers and rounds; {max(late):.1f} ms the worst)."
    )


def _connect(results: Results) -> str:
    rows = [
        [
            server,
            _number(results, "connect", server, "storm", "cpu_ms", digits=3),
            results.ratio("connect", server, "storm", "cpu_ms", CENTRIFUGO),
            _number(results, "connect", server, "storm", "seconds", digits=1),
            _number(results, "connect", server, "storm", "heartbeat_ms", digits=0),
            _number(results, "fanout", server, MEMORY, "kib", digits=1),
        ]
        for server in results.servers("connect")
    ]
    head = ["server", "CPU ms of a connect", "to Centrifugo's", "s until all have joined"]
    head += ["longest wait for a heartbeat, ms", "KiB a client"]
    return (
        _table(head, rows)
        + f"\n{results.settings['connects']:,} clients at once; {_medians(results, 'connect')}. Memory is of "
        f"the {results.settings['subscribers']:,} of the tables above.\n"
    )


def _sizes(results: Results) -> str:
    cases = results.cases("sizes")
    others = [name for name in results.servers("sizes") if name != FLOOR]
    head = ["subscribers", FLOOR]
    rows = []
    for name in others:
        head += [name, "to the floor", "p99, ms"]
    for case in cases:
        row = [f"{int(case):,}", _number(results, "sizes", FLOOR, case, "cpu_us")]
        for name in others:
            row += [
                _number(results, "sizes", name, case, "cpu_us"),
                results.ratio("sizes", name, case, "cpu_us"),
                _number(results, "sizes", name, case, "p99_ms", digits=0),
            ]
        rows.append(row)
    # here and not in the page, which would else show the picture of an earlier run
    picture = "![Lines: CPU of a delivery over the number of subscribers.](pictures/performance-sizes.png)"
    table = _table(head, rows)
    return f"{picture}\n\n{table}\nCPU µs of a delivery, calm; {_medians(results, 'sizes')}.\n"


def _topics(results: Results) -> str:
    rows = [
        [
            name,
            _number(results, "topics", name, "2", "cpu_us", digits=1),
            results.ratio("topics", name, "2", "cpu_us", CENTRIFUGO),
            _number(results, "topics", name, "2", "p50_ms", digits=2),
            _number(results, "topics", name, "2", "p99_ms", digits=1),
        ]
        for name in results.servers("topics")
    ]
    return (
        _table(["server", "CPU µs of a delivery", "to Centrifugo's", "p50, ms", "p99, ms"], rows)
        + f"\n{results.settings['topics']:,} topics of two members, one message a request, so "
        f"that half of what publishing costs is in each delivery; {_medians(results, 'topics')}.\n"
    )


def _alone(results: Results) -> str:
    rows = []
    for (scenario, case, figure), (label, digits) in LABELS.items():
        values = list(results.rounds(scenario, GATEWAY, case, figure).values())
        if values:
            middle = results.median(scenario, GATEWAY, case, figure)
            rows.append(
                [
                    label,
                    *(f"{each:,.{digits}f}" for each in (middle or 0.0, min(values), max(values))),
                ]
            )
    return _table(["Gateway", "median", "lowest", "highest"], rows) + "\n"


def _number(
    results: Results, scenario: str, server: str, case: str, figure: str, *, digits: int = 2
) -> str:
    value = results.median(scenario, server, case, figure)
    return "-" if value is None else f"{value:,.{digits}f}"


def _medians(results: Results, scenario: str) -> str:
    rounds = len({run.round for run in results.runs if run.scenario == scenario})
    if rounds == 1:
        return "one round"
    return f"medians of {rounds} rounds; a ratio is taken within a round, in brackets the lowest and highest"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 0) -> str:
    """Markdown; the first column is to the left, and as many more as are said."""
    ruler = "|".join(["---"] * (1 + left) + ["--:"] * (len(head) - 1 - left))
    return f"| {' | '.join(head)} |\n|{ruler}|\n" + "".join(
        f"| {' | '.join(row)} |\n" for row in rows
    )
