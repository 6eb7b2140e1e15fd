"""The clients whose toolchains every developer has; ``make matrix`` plays all."""

import asyncio
from pathlib import Path

import pytest

from tests.conftest import require
from tests.matrix.clients import CLIENTS
from tests.matrix.page import failures, recorded
from tests.matrix.playing import play
from tests.support.nats import nats_server_binary

PATIENCE_MS = 5000
"""Clients whose heartbeats are further apart are not waited for."""

FAST = [client for client in CLIENTS if client.toolchain in ("node", "python")]


@pytest.mark.slow
def test_clients_do_what_the_page_says(node: str, tmp_path: Path) -> None:  # noqa: ARG001 -- skips without
    require("nats-server", nats_server_binary())

    results = asyncio.run(play(FAST, tmp_path, PATIENCE_MS))

    assert not failures(results), "\n".join(failures(results))
    known = recorded()
    for name, result in results.items():
        cells = known[name]["cells"]
        assert result["cells"].items() <= cells.items(), name
        assert cells.keys() - result["cells"].keys() <= {"beat"}, name
