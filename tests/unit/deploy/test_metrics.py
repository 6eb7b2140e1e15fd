"""Dashboard, alerts and documents name metrics that exist, with labels that they have."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.unit.deploy.promql import exported, faults

ROOT: Final = Path(__file__).parents[3]
PROMETHEUS: Final = ROOT / "deploy/prometheus"
DASHBOARD: Final = json.loads((ROOT / "deploy/grafana/gateway.json").read_text())
RULES: Final = {
    rule["alert"]: rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
RUNBOOK: Final = (ROOT / "docs/runbook.md").read_text()
KNOWN: Final = exported()

IN_DOCS: Final = re.compile(
    r"\b(?:gateway_)?[a-z_]+(?:_total\b(?:\{[^}`]*\})?|\{[a-z_]+=[^}`]*\})|\bgateway_[a-z_]+\b"
)
"""A name in prose that can only be a metric's."""

NO_METRICS: Final = {"gateway_client", "gateway_last_seen", "gateway_revocations", "gateway_url"}


def queries() -> Iterator[tuple[str, str]]:
    """Title of a panel and an expression of it."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("gateway_connections", ""),
        ("gateway_connection", "no metric gateway_connection"),
        ('rate(gateway_joins_total{result="ok"}[5m])', ""),
        ('rate(gateway_joins_total{reason="ok"}[5m])', "gateway_joins_total has no label reason"),
        ('gateway_joins_total{result="okay"}', "gateway_joins_total: no result okay"),
        ('gateway_joins_total{result=~"ok|nay"}', "gateway_joins_total: no result nay"),
        ("sum by (result) (gateway_joins_total)", ""),
        ("sum by (kind) (gateway_joins_total)", "nothing has a label kind"),
        ("rate(gateway_joins[5m])", "no metric gateway_joins"),
        ("rate(joins_total[5m])", "joins_total is no metric of ours"),
        ("sum by (le) (rate(gateway_fanout_seconds_bucket[5m]))", ""),
        ('gateway_upstream_request_seconds_count{type="x", status="200"}', ""),
    ],
)
def test_a_wrong_name_is_noticed(expression: str, fault: str) -> None:
    assert faults(expression, KNOWN) == ([fault] if fault else [])


def test_the_dashboard_asks_for_what_there_is() -> None:
    wrong = {title: found for title, query in queries() if (found := faults(query, KNOWN))}

    assert wrong == {}


def test_the_dashboard_shows_every_metric() -> None:
    asked = " ".join(query for _, query in queries())
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in KNOWN if name[:8] == "gateway_"}
    # of counters prometheus_client shows when they were made, too
    missing = [name for name in ours if name not in asked and not name.endswith("_created")]

    assert missing == []


def test_the_legends_of_the_dashboard_name_labels_of_their_queries() -> None:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target


def test_panels_do_not_lie_on_each_other() -> None:
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        for cell in (
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ):
            assert cell not in taken, panel["title"]
            assert cell[0] < 24
            taken.add(cell)


@pytest.mark.parametrize("name", RULES)
def test_an_alert_asks_for_what_there_is(name: str) -> None:
    rule = RULES[name]
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    grouped = {
        label.strip()
        for labels in re.findall(r"by \(([^)]*)\)", rule["expr"])
        for label in labels.split(",")
    }

    assert faults(rule["expr"], KNOWN) == []
    assert rule["labels"]["severity"] in ("critical", "warning")
    # what is not aggregated has all labels of its series
    assert not grouped or labels <= grouped


@pytest.mark.parametrize("name", RULES)
def test_an_alert_has_lines_in_the_runbook(name: str) -> None:
    assert RULES[name]["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
    section = re.search(rf"^## {name}\n\n(.+?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert len(section[1].split()) > 20


def test_the_runbook_has_no_alert_that_is_gone() -> None:
    assert set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)) == RULES.keys()


def test_each_alert_is_tested_to_fire_and_not_to() -> None:
    tests: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())[
        "tests"
    ]
    fires: set[str] = set()
    quiet: set[str] = set()
    for test in tests:
        [case] = test["alert_rule_test"]
        (fires if case["exp_alerts"] else quiet).add(case["alertname"])
        for series in test["input_series"]:
            assert faults(series["series"], KNOWN) == []

    assert fires == quiet == RULES.keys()


@pytest.mark.parametrize(
    "document", sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"]), ids=lambda path: path.name
)
def test_documents_name_metrics_that_there_are(document: Path) -> None:
    wrong = []
    for name in IN_DOCS.findall(document.read_text()):
        full = name if name.startswith("gateway_") else f"gateway_{name}"
        histogram = f"{full}_count"
        if name not in NO_METRICS and histogram not in KNOWN:
            wrong += faults(full, KNOWN)

    assert wrong == []


def test_names_in_prose_are_found() -> None:
    found = IN_DOCS.findall((ROOT / "docs/operations.md").read_text())

    assert len(found) > 30
    assert 'connects_total{reason="descriptor_limit"}' in found


def test_the_autoscaler_is_given_a_metric_that_there_is() -> None:
    adapter = yaml.safe_load(
        (ROOT / "deploy/kubernetes/prometheus-adapter.values.yaml").read_text()
    )
    [rule] = adapter["rules"]["custom"]

    assert faults(rule["seriesQuery"], KNOWN) == []
    assert "gateway_connections" in rule["metricsQuery"]
