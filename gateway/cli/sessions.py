"""``gateway sessions``: which devices of a user are connected, and where."""

from typing import Annotated, Any
from urllib.parse import quote

import msgspec
import typer

from gateway.cli.client import KeyOption, UrlOption, call
from gateway.cli.options import Assignments, ConfigFile, Dev, complain, read_config, table, write

_COLUMNS = ("session", "device", "type", "replica", "ip", "connected at", "topics")


def sessions(
    user: Annotated[
        str, typer.Argument(metavar="USER", help="The user: the claim sub of the token.")
    ],
    *,
    url: UrlOption = None,
    key: KeyOption = None,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
) -> None:
    """List a user's sessions on all replicas."""
    settings = read_config(config, dev, assignments).config
    path = f"/v1/users/{quote(user, safe='')}/sessions"
    answer = msgspec.json.decode(call(settings, "GET", path, scope="read", url=url, key=key))
    rows = list(map(_row, answer["items"]))
    for line in table([_COLUMNS, *rows]) if rows else [f"user {user} has no sessions"]:
        write(line)
    if not answer["complete"]:
        missing = ", ".join(answer["missing_replicas"]) or "some replicas"
        complain(f"the list is not complete: no answer from {missing}", kind="warning")


def _row(session: dict[str, Any]) -> tuple[str, ...]:
    device = session["device"]
    return (
        session["id"],
        device["name"] or device["id"] or "-",
        device["type"] or "-",
        session["replica"],
        session["ip"],
        session["connected_at"],
        " ".join(session["topics"]),
    )
