"""Generates the documentation of all keys from their definition.

``config/gateway.toml`` is :func:`toml_reference`, and ``docs/configuration.md`` ends in
:func:`markdown_reference`; tests fail when they are not.
"""

import json
import textwrap
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.config.keys import KEYS, REQUIRED, ConfigKey, Shape, keys_of
from gateway.config.sections import CHANNELS, SECTIONS, ChannelSettings

_WIDTH: Final = 100

_TOML_HEAD: Final = """\
# Every key of the gateway with its default; a file needs only those that differ.
# Read with --config FILE or GATEWAY_CONFIG=FILE. The environment comes before the file, such as
# GATEWAY_SERVER__PUBLIC=0.0.0.0:4000 (lists as JSON), and --set server.public=0.0.0.0:4000 before
# both.
"""


def toml_value(value: Any) -> str:  # noqa: ANN401 -- whatever a key may hold
    """A value in TOML."""
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(
                f"{name} = {toml_value(item)}"
                for name, item in value.items()
                if item is not None  # TOML has no word for it but absence
            )
            + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # a JSON string is a TOML string, but for one character that TOML wants escaped
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_reference() -> str:
    """A configuration file with every key."""
    parts = [_TOML_HEAD]
    for section, keys in _sections():
        if section == CHANNELS:
            parts.append("".join(_toml_list(CHANNELS, ChannelSettings)))
            continue
        parts.append(f"\n{_comment(_sentence(SECTIONS[section]))}[{section}]\n")
        for key in keys:
            item = key.shape.item
            if item is not None and item.table is not None:
                parts.append("".join(_toml_list(key.path, item.table)))
            else:
                parts.append(_comment(_meaning(key.shape)))
                parts.append(f"{key.name} = {toml_value(key.default)}\n")
    return "".join(parts)


def markdown_reference() -> str:
    """A table for each section: key, default, environment variable, meaning."""
    parts = []
    for section, keys in _sections():
        if section == CHANNELS:
            parts += [
                *_markdown_head(f"[[{CHANNELS}]]", ChannelSettings),
                *_markdown_list(keys[0], ChannelSettings),
            ]
            continue
        parts += _markdown_head(f"[{section}]", SECTIONS[section])
        plain = [key for key in keys if key.shape.item is None or key.shape.item.table is None]
        if plain:
            parts.append("| key | default | environment variable | meaning |\n|---|---|---|---|\n")
            parts += [
                _row(key.name, _code(key), f"`{key.env}`", _meaning(key.shape)) for key in plain
            ]
        for key in keys:
            if key.shape.item is not None and key.shape.item.table is not None:
                parts += _markdown_list(key, key.shape.item.table)
    return "".join(parts)


def _sections() -> Iterator[tuple[str, list[ConfigKey]]]:
    sections: dict[str, list[ConfigKey]] = {}
    for key in KEYS.values():
        sections.setdefault(key.path.partition(".")[0], []).append(key)
    yield from sections.items()


def _toml_list(path: str, table: type[msgspec.Struct]) -> Iterator[str]:
    """A list of tables, commented out: by default there is none."""
    yield f"\n{_comment(_sentence(table))}# [[{path}]]\n"
    for key in keys_of(table):
        yield textwrap.indent(_comment(_meaning(key.shape)), "# ")
        absent = key.default is None
        value = key.shape.example if absent or key.default is REQUIRED else key.default
        yield f"# {'# ' * absent}{key.name} = {toml_value(value)}\n"


def _markdown_head(title: str, table: type[msgspec.Struct]) -> Iterator[str]:
    yield f"\n## `{title}`\n\n{_sentence(table)}\n\n"


def _markdown_list(key: ConfigKey, table: type[msgspec.Struct]) -> Iterator[str]:
    yield f"Tables `[[{key.path}]]`, or the whole list as JSON in `{key.env}`.\n\n"
    yield "| key | default | meaning |\n|---|---|---|\n"
    for one in keys_of(table):
        yield _row(one.name, _code(one), _meaning(one.shape))


def _row(name: str, *cells: str) -> str:
    return "| " + " | ".join((f"`{name}`", *(cell.replace("|", "\\|") for cell in cells))) + " |\n"


def _code(key: ConfigKey) -> str:
    if key.default is None:
        return "absent"
    return "must be given" if key.default is REQUIRED else f"`{toml_value(key.default)}`"


def _meaning(shape: Shape) -> str:
    """The key's sentence and what is allowed, where that does not go without saying."""
    options = shape.options or (shape.item.options if shape.item is not None else ())
    if options:
        return f"{shape.description} {'Any' if shape.item else 'One'} of {', '.join(options)}."
    if shape.table is not None and shape.optional:
        return f"{shape.description} {shape.allowed().capitalize()}."
    if shape.base in (int, float):
        return f"{shape.description} {shape.allowed().removeprefix('a ').capitalize()}."
    return shape.description


def _sentence(table: type[msgspec.Struct]) -> str:
    return " ".join((table.__doc__ or "").split())


def _comment(text: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(text, _WIDTH, break_long_words=False))
