"""The short form of ``make faults``: some of the faults, one after the other."""

from pathlib import Path

import pytest

from tests.conftest import require
from tests.faults.crowd import move
from tests.faults.run import play
from tests.faults.table import FAULTS
from tests.support.nats import nats_server_binary


@pytest.mark.slow
async def test_nothing_stored_is_lost_repeated_or_out_of_order(tmp_path: Path) -> None:
    require("nats-server", nats_server_binary())
    faults = [fault for fault in FAULTS if fault.short]
    problems: list[str] = []
    seen = 0
    async for outcome in play(faults, tmp_path):
        seen += 1
        problems += outcome.problems
        assert outcome.taken > 0
        if outcome.fault.told:
            assert outcome.told.total() > 0, "clients that missed something are told"
    assert not problems, "\n".join(problems)
    assert seen == len(faults)


def test_names_tell_faults_apart() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.slow
async def test_a_deploy_moves_everybody_and_nobody_sees_it(tmp_path: Path) -> None:
    require("nats-server", nats_server_binary())
    moved = await move(150, 4, tmp_path)

    assert moved.problems == []
