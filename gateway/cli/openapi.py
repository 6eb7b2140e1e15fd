"""``gateway openapi``: the description of the API."""

import json

from gateway.cli.options import write


def openapi() -> None:
    """Print the OpenAPI document of the HTTP API."""
    from gateway.api.openapi import document  # noqa: PLC0415 -- the other commands do not need it

    write(json.dumps(document(), indent=2, ensure_ascii=False))
