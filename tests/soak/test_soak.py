"""The short form of ``make soak``: every fault once, with fewer clients and messages."""

import random
from pathlib import Path

import pytest

from tests.conftest import require
from tests.soak.run import SHORT, soak
from tests.support.nats import nats_server_binary


@pytest.mark.slow
async def test_nothing_is_lost_or_repeated_whatever_goes_wrong(node: str, tmp_path: Path) -> None:
    require("nats-server", nats_server_binary())
    seed = random.randrange(1_000_000)
    print(f"again with: python -m tests.soak --seed {seed}")
    report = await soak(SHORT, seed, tmp_path, node)
    print("\n".join(report.summary))
    assert not report.problems, "\n\n".join([f"seed {seed}", *report.problems])
    assert any(line.startswith("joins") and "recovered" in line for line in report.summary)
