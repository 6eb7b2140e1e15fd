"""What works, but was hardly meant."""

import json
from typing import Any

import pytest

from gateway.config.check import warnings
from tests.unit.config.loading import load_config

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"

SOUND: dict[str, Any] = {
    "auth.secrets": [SECRET],
    "api.keys": [{"name": "a", "key": SECRET, "scopes": ["publish"]}],
    "channels": [{"pattern": "a"}],
}


def doubts(**changed: object) -> list[str]:
    """The warnings for a sound configuration with changes; ``__`` in a name is a dot."""
    settings = SOUND | {name.replace("__", "."): value for name, value in changed.items()}
    assignments = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    found = list(warnings(load_config(environ={}, assignments=assignments)))
    assert "hunter2" not in str(found)
    return found


def test_a_sound_configuration_is_not_doubted() -> None:
    assert doubts() == []


@pytest.mark.parametrize(
    ("changed", "start"),
    [
        (
            {"api__keys": [{"name": "a", "key": "fifteen-letters", "scopes": ["read"]}]},
            "api.keys[0].key: is shorter than 16 bytes",
        ),
        ({"auth__secrets": []}, "auth.secrets: is empty, as are auth.public_keys"),
        ({"api__keys": []}, "api.keys: is empty, so the API answers 401"),
        ({"channels": []}, "channels: is empty"),
        ({"limits__idle_timeout_seconds": 30}, "limits.idle_timeout_seconds: 30 closes clients"),
        ({"drain__window_seconds": 21}, "drain: takes 31 seconds"),
    ],
)
def test_what_was_hardly_meant_is_doubted(changed: dict[str, object], start: str) -> None:
    [warning] = doubts(**changed)

    assert warning.startswith(start)


@pytest.mark.parametrize(
    ("patterns", "never"),
    [
        (["room:*", "room:1"], {1: 0}),
        (["*", "a", "user:{sub}"], {1: 0, 2: 0}),
        (["room:*", "room:vip:*"], {1: 0}),
        (["user:*", "user:{sub}"], {1: 0}),
        (["user:{sub}", "user:{id}"], {1: 0}),
        (["room:1", "room:*"], {}),
        (["room:*", "roomy", "rooms:*"], {}),
        (["user:{sub}", "user:{sub}:*"], {}),
        (["user:{sub}:*", "user:{sub}"], {}),
    ],
)
def test_a_rule_behind_a_more_general_one_is_doubted(
    patterns: list[str], never: dict[int, int]
) -> None:
    found = doubts(channels=[{"pattern": pattern} for pattern in patterns])

    assert [line for line in found if "personal topics" not in line] == [
        f'channels[{late}].pattern: "{patterns[late]}" never matches,'
        f' as channels[{early}], "{patterns[early]}", matches first'
        for late, early in never.items()
    ]


@pytest.mark.parametrize(
    ("pattern", "doubted"),
    [("*", True), ("user:*", True), ("us*", True), ("room:*", False), ("user:{sub}", False)],
)
def test_a_rule_that_lets_others_into_personal_topics_is_doubted(
    pattern: str, doubted: bool
) -> None:
    found = doubts(channels=[{"pattern": pattern}])

    assert any("holds for personal topics too" in line for line in found) is doubted
