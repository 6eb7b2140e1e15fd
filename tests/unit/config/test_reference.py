"""The documentation of the keys says what the code does."""

import re
import tomllib
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.config.keys import KEYS, keys_of
from gateway.config.reference import markdown_reference, toml_reference, toml_value
from gateway.config.sections import ChannelSettings
from tests.unit.config.loading import load_config

ROOT = Path(__file__).parents[3]


def test_the_file_with_all_keys_is_up_to_date() -> None:
    """If not: gateway config --reference toml > config/gateway.toml."""
    assert (ROOT / "config/gateway.toml").read_text() == toml_reference()


def test_the_documented_tables_are_up_to_date() -> None:
    """If not: gateway config --reference markdown, below the mark in the document."""
    document = (ROOT / "docs/configuration.md").read_text()

    assert document.partition("reference markdown -->\n")[2] == markdown_reference()


def test_the_file_with_all_keys_says_the_defaults() -> None:
    assert load_config(ROOT / "config/gateway.toml", environ={}) == Config()


def test_the_file_has_every_key_in_order() -> None:
    text = toml_reference()
    written = [
        f"{section}.{key}" for section, table in tomllib.loads(text).items() for key in table
    ]

    assert written == [path for path in KEYS if path not in ("api.keys", "channels")]


def test_the_examples_of_the_file_can_be_used(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    lines = [
        line.removeprefix("# ")
        for line in toml_reference().splitlines()
        if re.match(r"# (\[\[|# |\w+ = )", line)
    ]
    file.write_text("\n".join(lines))

    config = load_config(file, environ={})

    assert config.channels == (ChannelSettings(pattern="room:*"),)
    assert [key.name for key in config.api.keys] == ["backend"]


def test_every_key_is_described_in_a_sentence() -> None:
    items = [key.shape.item.table for key in KEYS.values() if key.shape.item]
    inner = [key for table in items if table for key in keys_of(table)]
    for key in (*KEYS.values(), *inner):
        if key.path != "channels":
            assert re.fullmatch(r"[A-Z].*\.", key.shape.description), key.path


@pytest.mark.parametrize(
    "value", [True, 3, 'a"b\\c\nd\x7fä\x00', ["a", 1], {"a": [{"b": False}]}, [], 0.5]
)
def test_values_are_written_as_toml(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


def test_whole_seconds_are_written_without_a_point() -> None:
    assert toml_value(90.0) == "90"
