"""``make performance`` works: a short run of it, and the page that is made of what it found."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.performance import page
from bench.performance.results import Results

SERVERS = ["floor", "gateway"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of a few seconds has found."""
    results = tmp_path_factory.mktemp("bench") / "results.json"
    subprocess.run(
        [
            *("timeout", "90"),  # which has it end its servers
            *(sys.executable, "-m", "bench.performance", "--quick", "--only", "fanout"),
            *("--servers", ",".join(SERVERS), "--results", str(results)),
        ],
        cwd=Path(__file__).parents[2],
        check=True,
    )
    found: dict[str, Any] = json.loads(results.read_text())
    return found


def test_all_that_was_published_is_delivered(found: dict[str, Any]) -> None:
    assert found["failed"] == []
    assert [run["server"] for run in found["runs"]] == SERVERS
    for run in found["runs"]:
        delivered = [case for name, case in run["cases"].items() if name != page.MEMORY]
        assert len(delivered) == 3
        for case in delivered:
            assert case["deliveries"] == case["expected"] > 0
            assert case["lost"] == case["repeated"] == case["closed"] == case["refused"] == 0


def test_the_page_has_a_place_for_each_table_that_is_made(found: dict[str, Any]) -> None:
    blocks = page.blocks(Results.of(found))
    text = page.PAGE.read_text()

    for name in blocks:
        assert f"<!-- performance {name}: begin -->" in text
        assert f"<!-- performance {name}: end -->" in text
    for server in SERVERS:
        assert f"\n| {server} | " in blocks["fanout"]
