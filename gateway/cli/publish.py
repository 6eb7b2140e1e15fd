"""``gateway publish``: one message to a topic, through the API of a running gateway."""

from typing import Annotated

import msgspec
import typer

from gateway.cli.client import KeyOption, UrlOption, call
from gateway.cli.options import Assignments, ConfigFile, Dev, read_config, write


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic, such as room:42.")],
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Name of the event.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="The payload, a JSON object.")],
    *,
    url: UrlOption = None,
    key: KeyOption = None,
    config: ConfigFile = None,
    dev: Dev = False,
    assignments: Assignments = None,
) -> None:
    """Publish a message to everybody on a topic, and print the gateway's answer."""
    settings = read_config(config, dev, assignments).config
    try:
        body = {"topic": topic, "event": event, "payload": _object(payload)}
    except msgspec.DecodeError:
        raise typer.BadParameter("must be a JSON object", param_hint="JSON") from None
    write(call(settings, "POST", "/v1/publish", scope="publish", url=url, key=key, body=body))


def _object(text: str) -> msgspec.Raw:
    """The text itself, as it shall arrive byte for byte.

    Raises:
        msgspec.DecodeError: It is no JSON object.
    """
    msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return msgspec.Raw(text.encode())
