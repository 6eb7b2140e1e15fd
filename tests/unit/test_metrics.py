"""Metrics: counters whose labels are known exist before anything is counted."""

import ast
import re
from pathlib import Path

import pytest

from gateway.auth.refusal import TokenRefusal
from gateway.bus.refusals import RefusalKind
from gateway.channels.connections import Phase
from gateway.metrics import Metrics
from gateway.protocol.reasons import CloseCode, Reason

ROOT = Path(__file__).parents[2]


def series(name: str) -> dict[str, float]:
    """The last label of each series of a new replica's counter, and its value."""
    [family] = [f for f in Metrics().registry.collect() if f"{f.name}_total" == f"gateway_{name}"]
    return {
        list(sample.labels.values())[-1]: sample.value
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def refusals() -> set[str]:
    """Reasons of refused handshakes that stand in the code."""
    found: set[str] = set()
    for path in (ROOT / "gateway/transport").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Refused":
                reason = node.args[1]
                found |= {str(reason.value)} if isinstance(reason, ast.Constant) else set()
    return found


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("joins_total", {"ok", "upstream refused", *Reason} - {Reason.PUSH_NOT_ALLOWED}),
        ("disconnects_total", {"1000", "1006", "other", *(str(int(code)) for code in CloseCode)}),
        ("connects_total", {"", "origin", "bad_request", "connection_limit", *refusals()}),
        ("connects_total", set(TokenRefusal) | (set(Phase) - {Phase.SERVING})),
        ("token_refreshes_total", {"ok", *TokenRefusal}),
        ("bus_refusals_total", set(RefusalKind)),
    ],
)
def test_what_can_be_counted_is_there_at_zero(name: str, known: set[str]) -> None:
    born = series(name)

    assert known - born.keys() == set()
    assert set(born.values()) == {0.0}


@pytest.mark.parametrize(
    "name",
    [
        "messages_dropped_total",
        "resumes_total",
        "upstream_events_dropped_total",
        "background_errors_total",
        "key_fetches_total",
    ],
)
def test_what_the_documents_name_is_there_at_zero(name: str) -> None:
    table = (ROOT / "docs/operations.md").read_text()
    [row] = [line for line in table.splitlines() if line.startswith(f"| `{name}` ")]
    named = set(re.findall(r"`([a-z_]+)`", row.split("|")[3]))

    assert series(name).keys() == named


def test_a_counter_with_labels_has_known_values() -> None:
    """Or somebody who counts for the first time cannot be seen."""
    labelled = {
        f.name for f in Metrics().registry.collect() if f.type == "counter" and not f.samples
    }

    assert labelled == set()
