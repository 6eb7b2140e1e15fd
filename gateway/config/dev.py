"""What ``--dev`` changes: a gateway to try things on, open to all, but on this machine only."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.config.sources import Written

FLAG: Final = "--dev"

SECRET: Final = "gateway-dev-secret-known-to-everybody"  # noqa: S105 -- guards nothing: anybody may connect
API_KEY: Final = "dev"

_ALWAYS: Final = {"auth.allow_anonymous": True}

_UNLESS_TOLD: Final[dict[str, Any]] = {
    "server.public": "127.0.0.1:4000",
    "server.internal": "127.0.0.1:4001",
    "server.allowed_origins": ["*"],
    "bus.url": "memory://",
    "auth.secrets": [SECRET],
    "channels": [
        {
            "pattern": "*",
            "join": "anyone",
            "push": "broadcast",
            "presence": True,
            "history": {"messages": 100, "seconds": 300},
        }
    ],
    # there is no load balancer to wait for when a developer presses Ctrl-C
    "drain.delay_seconds": 0,
    "drain.window_seconds": 0,
}


def dev_overrides(told: Mapping[str, Written]) -> dict[str, Written]:
    """What ``--dev`` sets.

    Args:
        told: What file, environment and flags say; what they leave empty counts as not said.
    """
    unsaid = {
        path: value
        for path, value in _UNLESS_TOLD.items()
        if path not in told or told[path].value in ("", [])
    }
    return {
        path: Written(value, FLAG)
        for path, value in (_ALWAYS | unsaid | {"api.keys": _keys(told)}).items()
    }


def _keys(told: Mapping[str, Written]) -> Any:  # noqa: ANN401 -- what was written may be no list
    """The keys there are, and one that is easy to type."""
    there = told["api.keys"].value if "api.keys" in told else []
    if not isinstance(there, list) or any(_is_dev(key) for key in there):
        return there
    return [*there, {"name": API_KEY, "key": API_KEY, "scopes": ["publish", "read", "manage"]}]


def _is_dev(key: object) -> bool:
    return isinstance(key, dict) and API_KEY in (key.get("name"), key.get("key"))
