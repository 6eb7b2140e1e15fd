"""docs/clients.md and what ``make matrix`` saw; the versions it names and those that are locked."""

import re
from pathlib import Path

from tests.matrix.clients import CLIENTS, DRIVERS
from tests.matrix.page import PAGE, failures, recorded, unplayed, with_tables

ROOT = Path(__file__).parents[2]
MANIFESTS = {
    "node": ROOT / "tests/clients/node/package.json",
    "python": ROOT / "pyproject.toml",
    "go": DRIVERS / "go/go.mod",
    "java": DRIVERS / "java/pom.xml",
    "rust": DRIVERS / "rust/Cargo.toml",
}


def test_the_page_shows_what_was_seen() -> None:
    page = PAGE.read_text()

    assert page == with_tables(page, recorded()), "make matrix draws it anew"


def test_all_clients_were_played_and_none_failed() -> None:
    results = recorded()

    assert not failures(results)
    assert not unplayed(results)
    assert list(results) == [client.name for client in CLIENTS]


def test_the_versions_played_are_those_that_are_locked() -> None:
    results = recorded()
    for client in CLIENTS:
        locked = MANIFESTS[client.toolchain].read_text()
        assert re.search(rf"(?<![\d.]){re.escape(client.version)}(?![\d.])", locked), client.name
        assert results[client.name]["version"] == client.version, "make matrix plays it anew"


def test_the_page_speaks_of_enough_clients() -> None:
    libraries = {(client.registry, client.name.partition(",")[0]) for client in CLIENTS}

    assert len(libraries) >= 14
    assert len({client.language for client in CLIENTS}) >= 5
