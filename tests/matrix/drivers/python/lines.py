"""Lines of JSON: what a driver is told, and what it reports."""

import asyncio
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

_one_at_a_time = threading.Lock()

Do = Callable[[dict[str, Any]], Awaitable[None]]


def report(saw: str, socket: str, **details: Any) -> None:
    """Say what the client showed."""
    with _one_at_a_time:
        print(json.dumps({"saw": saw, "as": socket} | details), flush=True)


async def follow(commands: Mapping[str, Do]) -> None:
    """Do what standard input says, until it ends; one thing may wait while the next is done."""
    under_way = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        command = json.loads(line)
        task = asyncio.create_task(_done(commands[command["do"]], command))
        under_way.add(task)
        task.add_done_callback(under_way.discard)


async def _done(do: Do, command: dict[str, Any]) -> None:
    try:
        await do(command)
    except Exception as error:  # noqa: BLE001 -- whatever the client raises is what its application sees
        report("error", command["as"], text=repr(error))
