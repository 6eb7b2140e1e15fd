"""What a client that follows presence knows in the end, from all the bytes it was sent."""

import json
from collections.abc import Iterator
from typing import Any

from bench.servers.gateway import check_joined
from bench.wire import TEXT, LoadError, split


def check_roster(stream: bytes, users: set[str]) -> None:
    """Make sure that one client has joined and, all diffs merged by ``phx_ref``, knows exactly these users.

    Raises:
        LoadError: It does not, or was told something twice, or before the state.
    """
    there: dict[str, str] = {}  # ref -> user
    states = 0
    texts = _texts(stream)
    check_joined(next(texts))
    for text in texts:
        event, payload = json.loads(text)[3:5]
        if event == "presence_state":
            states += 1
            joins, leaves = payload, {}
        elif event == "presence_diff" and states:
            joins, leaves = payload["joins"], payload["leaves"]
        else:
            raise LoadError(f"unexpected {event} after {states} states")
        for ref, user in _metas(joins):
            if ref in there:
                raise LoadError(f"user {user} came twice as {ref}")
            there[ref] = user
        for ref, user in _metas(leaves):
            if there.pop(ref, None) != user:
                raise LoadError(f"user {user} left as {ref}, of which nothing was known")
    if states != 1 or len(there) != len(users) or set(there.values()) != users:
        raise LoadError(f"{states} states, {len(there)} metas instead of {len(users)}")


def _texts(stream: bytes) -> Iterator[bytes]:
    while (found := split(stream)) is not None:
        opcode, payload, stream = found
        if opcode == TEXT:
            yield payload
    if stream:
        raise LoadError(f"{len(stream)} bytes of a frame that is not all there")


def _metas(users: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for user, entry in users.items():
        for meta in entry["metas"]:
            yield meta["phx_ref"], user
