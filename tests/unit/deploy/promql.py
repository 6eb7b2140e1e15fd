"""What a PromQL expression names: metrics, with the labels and values it selects or groups by."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from prometheus_client.core import Metric

from gateway.metrics import Metrics, SupervisorMetrics

OUR_NAMES: Final = re.compile(r"\b(?:gateway|process|python)_[a-z0-9_]+|\bup\b")
SELECTOR: Final = re.compile(
    r"(?P<name>[a-z_][a-z0-9_]*)(?P<labels>\{[^{}]*\})?(?P<range>\[[^\]]*\])?"
)
MATCHER: Final = re.compile(r'([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING: Final = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")

TARGET_LABELS: Final = {"job", "instance", "namespace", "pod"}
"""What Prometheus itself puts to each series."""

SAMPLE_SUFFIXES: Final = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}


class Series(NamedTuple):
    """The series of one name: the labels they have, and of each the values that are known beforehand."""

    labels: dict[str, set[str]]


def exported() -> dict[str, Series]:
    """What a replica, or a supervisor of workers, shows to Prometheus, by the names of its samples."""
    metrics, supervisor = Metrics(), SupervisorMetrics()
    # what has labels without values known beforehand shows none of them until something counts
    declared = {
        each._name: set(each._labelnames)
        for each in (*vars(metrics).values(), *vars(supervisor).values())
        if hasattr(each, "_labelnames")
    }
    series = {"up": Series({})}
    for family in (*metrics.registry.collect(), *supervisor.registry.collect()):
        for name in _sample_names(family):
            labels: dict[str, set[str]] = {label: set() for label in declared.get(family.name, ())}
            if name.endswith("_bucket"):
                labels["le"] = set()
            for sample in family.samples:
                for label, value in sample.labels.items() if sample.name == name else ():
                    labels.setdefault(label, set()).add(value)
            series[name] = Series(labels)
    return series


def _sample_names(family: Metric) -> Iterator[str]:
    for suffix in SAMPLE_SUFFIXES.get(family.type, ("",)):
        yield family.name + suffix


def faults(expression: str, known: dict[str, Series]) -> list[str]:
    """What the expression names and no replica shows."""
    found: list[str] = []
    grouped = {
        label.strip() for labels in GROUPING.findall(expression) for label in labels.split(",")
    }
    used: set[str] = set()
    for match in SELECTOR.finditer(GROUPING.sub(" ", expression)):
        name = match["name"]
        if OUR_NAMES.fullmatch(name) is None:
            if match["labels"] or match["range"]:
                found.append(f"{name} is no metric of ours")
            continue
        if name not in known:
            found.append(f"no metric {name}")
            continue
        labels = known[name].labels
        used |= labels.keys()
        for label, operator, value in MATCHER.findall(match["labels"] or ""):
            if label not in labels.keys() | TARGET_LABELS:
                found.append(f"{name} has no label {label}")
            elif label in labels and (problem := _unknown(labels[label], operator, value)):
                found.append(f"{name}: no {label} {problem}")
    found += [f"nothing has a label {label}" for label in grouped - used - TARGET_LABELS if label]
    return found


def _unknown(values: set[str], operator: str, wanted: str) -> str:
    """The first alternative that no known value matches; empty when there is none, or no value is known."""
    alternatives = wanted.split("|") if "~" in operator else [re.escape(wanted)]
    for each in alternatives if values else ():
        if not any(re.fullmatch(each, value) for value in values):
            return each
    return ""
