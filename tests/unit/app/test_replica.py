"""The composition of a replica: whatever another one may ask of it, it answers."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.app.replica import Gateway
from gateway.cluster import Cluster, Command, LongCommand
from gateway.config import Config


def all_commands(base: type[Command[Any]]) -> Iterator[type[Command[Any]]]:
    """Those the product defines."""
    for command in base.__subclasses__():
        if command is not LongCommand and command.__module__.startswith("gateway."):
            yield command
        yield from all_commands(command)


@pytest.fixture
async def built(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Cluster]]:
    """The clusters that were checked while a replica was built."""
    checked: list[Cluster] = []

    def check(cluster: Cluster) -> None:
        checked.append(cluster)

    monkeypatch.setattr(Cluster, "check", check)
    gateway = Gateway(Config(), descriptors=1024)
    monkeypatch.undo()
    yield checked
    await gateway._upstream.close()


@pytest.mark.parametrize("command", [*all_commands(Command)], ids=lambda each: each.__name__)
async def test_a_replica_without_a_handler_of_a_command_does_not_start(
    built: list[Cluster], command: type[Command[Any]]
) -> None:
    [cluster] = built
    cluster.check()
    del cluster._handlers[command]
    with pytest.raises(LookupError, match=f" {command.__name__}$"):
        cluster.check()
