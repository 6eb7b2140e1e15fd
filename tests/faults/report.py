"""Outcomes as a table."""

from collections.abc import Sequence

from tests.faults.crowd import Moved
from tests.faults.run import Outcome

_HEAD = (
    "| fault | lasted, s | what held | taken | lost | repeated | out of order | right after, s |\n"
    "|---|--:|---|--:|--:|--:|--:|--:|\n"
)


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown."""
    return _HEAD + "".join(map(_row, outcomes))


def _row(outcome: Outcome) -> str:
    right = "never" if outcome.right_after is None else f"{outcome.right_after:.1f}"
    return (
        f"| {outcome.fault.name} | {outcome.lasted:.1f} | {_held(outcome)} | {outcome.taken:,}"
        f" | {outcome.lost} | {outcome.repeated} | {outcome.disordered} | {right} |\n"
    )


def _held(outcome: Outcome) -> str:
    """What was seen, in words."""
    parts = [f"{outcome.kept} of 3 sockets"]
    if outcome.beat:
        parts[0] += f", heartbeats elsewhere within {outcome.beat * 1000:.0f} ms"
    if outcome.resumed:
        parts.append(f"{outcome.resumed} joins resumed")
    if outcome.told:
        said = ", ".join(f"`{reason}`" for reason in sorted(outcome.told))
        parts.append(f"{outcome.told.total()} joins told {said}")
    if refused := outcome.refused.total():
        parts.append(f"{refused} publishes repeated")
    return "; ".join(parts)


def deploy(moved: Moved) -> str:
    """A moved crowd as Markdown."""
    least, most = moved.even
    told = ", ".join(f"{n:,} `{what}`" for what, n in moved.recovered.items())
    head = (
        *("sockets", "window, s", "closed within, s", "a tenth of it: least", "most"),
        *(
            "told on their return",
            "`presence_diff` seen by watchers",
            "by the moved",
            "all back after, s",
        ),
    )
    row = (
        *(
            f"{moved.sockets:,}",
            f"{moved.window:g}",
            f"{max(moved.closed):.1f}",
            f"{least:,}",
            f"{most:,}",
        ),
        *(told, str(len(moved.seen)), str(moved.told_late), f"{moved.back_after:.1f}"),
    )
    lines = (" | ".join(head), "|".join(["--:"] * len(head)), " | ".join(row))
    return "".join(f"| {line} |\n" for line in lines)
