"""The tables of docs/clients.md, from what was played."""

import json
import re
from pathlib import Path
from typing import TypedDict

from tests.matrix.clients import CLIENTS, Client
from tests.matrix.columns import COLUMNS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/clients.md"
RESULTS = Path(__file__).with_name("results.json")

NOT_THERE = "–"  # noqa: RUF001 -- a dash, as in a table

ALWAYS = ("join", "push", "hear", "why", "presence", "bytes", "others", "leave")
"""Columns of the first table; the others are those of the second."""

_BETWEEN = re.compile(r"(<!-- matrix: begin -->\n).*?(<!-- matrix: end -->)", re.DOTALL)


class Result(TypedDict):
    """What was seen of a client.

    Attributes:
        version: That was played.
        cells: What the page says, by column.
    """

    version: str
    cells: dict[str, str]


Results = dict[str, Result]


def recorded() -> Results:
    """What was seen last."""
    results: Results = json.loads(RESULTS.read_text())
    return results


def record(results: Results) -> None:
    """Keep what was seen, beside what is known of clients that were not played, and draw the page anew."""
    known = (recorded() if RESULTS.exists() else {}) | results
    ordered = {client.name: known[client.name] for client in CLIENTS if client.name in known}
    RESULTS.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(with_tables(PAGE.read_text(), ordered))


def with_tables(page: str, results: Results) -> str:
    """The page with its tables drawn from these results."""
    tables = "\n".join(_tables(results))
    return _BETWEEN.sub(lambda found: f"{found[1]}\n{tables}\n{found[2]}", page)


def _tables(results: Results) -> list[str]:
    played = [client for client in CLIENTS if client.name in results]
    later = tuple(key for key in COLUMNS if key not in ALWAYS)
    libraries = len({(client.registry, client.name.partition(",")[0]) for client in played})
    languages = len({client.language for client in played})
    return [
        (
            f"{libraries} clients in {languages} languages. A dash is something the client has not; "
            "the list below says why."
        ),
        "",
        *_table(played, results, ALWAYS),
        "",
        "And when something happens:",
        "",
        *_table(played, results, later),
        "",
        *(f"- **{column.head}**: {column.says}." for column in COLUMNS.values()),
        "",
        "### What to know of each",
        "",
        *(line for client in played for line in _known(client, results[client.name])),
        "",
    ]


def _table(played: list[Client], results: Results, keys: tuple[str, ...]) -> list[str]:
    heads = " | ".join(COLUMNS[key].head for key in keys)
    rows = [f"| client | {heads} |", "|---" * (1 + len(keys)) + "|"]
    for client in played:
        cells = results[client.name]["cells"]
        rows.append(
            f"| {client.name} | " + " | ".join(cells.get(key, NOT_THERE) for key in keys) + " |"
        )
    return rows


def _known(client: Client, result: Result) -> list[str]:
    lacks = [f"{COLUMNS[key].head}: {why}" for key, why in client.cannot.items()]
    whence = f"{client.language}, from {client.registry}; protocol version {client.wire}"
    lines = [f"- **{client.name}** {result['version']}, {whence}"]
    lines += [f"  - {lack}" for lack in lacks]
    lines += [f"  - {quirk}" for quirk in client.quirks]
    return lines


def failures(results: Results) -> list[str]:
    """Cells that are not what the client is said to be able to do."""
    return [
        f"{name}, {COLUMNS[key].head}: {cell}"
        for name, result in results.items()
        for key, cell in result["cells"].items()
        if cell.startswith("failed")
    ]


def unplayed(results: Results) -> list[str]:
    """Cells that a client should have and has not."""
    return [
        f"{client.name}: {COLUMNS[key].head}"
        for client in CLIENTS
        for key in COLUMNS
        if key not in client.cannot and key not in results.get(client.name, {"cells": {}})["cells"]
    ]
