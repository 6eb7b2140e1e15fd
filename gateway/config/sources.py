"""Reads values from a TOML file, the environment, and ``section.key=value`` flags."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.config.convert import Converter, nearest
from gateway.config.keys import BY_ENV, KEYS, ConfigKey
from gateway.config.masking import PEM
from gateway.config.sections import CHANNELS, SECTIONS
from gateway.errors import ConfigError

PREFIX: Final = "GATEWAY_"
FILE_VARIABLE: Final = "GATEWAY_CONFIG"
CHANNELS_VARIABLE: Final = "GATEWAY_CHANNELS"
FLAG: Final = "--set"

_SECRET_FILE: Final = "_FILE"  # noqa: S105 -- the end of a name


class Written(msgspec.Struct, frozen=True):
    """A value as TOML or JSON has it, and where it was written: the file, the variable or the flag."""

    value: Any
    origin: str


def from_file(path: str, converter: Converter) -> dict[str, Written]:
    """What a TOML file says, by key.

    Raises:
        ConfigError: It cannot be read or is no TOML.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: is not UTF-8") from problem
    except ValueError as problem:  # a number with thousands of digits is not a TOMLDecodeError
        raise ConfigError(f"{path}: is not TOML: {problem}") from problem
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply") from None
    written = {}
    for section, table in tables.items():
        if section == CHANNELS:
            written[section] = Written(table, path)
        elif section not in SECTIONS:
            converter.unknown(section)
        elif not isinstance(table, dict):
            converter.problems.append(f"{section}: must be a table, [{section}]")
        else:
            for name, value in table.items():
                key = f"{section}.{name}"
                if key in KEYS:
                    written[key] = Written(value, path)
                else:
                    converter.unknown(key)
    return written


def from_environment(environ: Mapping[str, str], converter: Converter) -> dict[str, Written]:
    """What the environment says, by key.

    A Kubernetes service called "gateway" puts ``GATEWAY_PORT`` and the like into every container, so
    only names with two underscores in a row are ours, beside the two that are listed.
    """
    written: dict[str, Written] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or ("__" not in name and name != CHANNELS_VARIABLE):
            continue
        key, text = BY_ENV.get(name), environ[name]
        if key is None:
            key = _secret_key(name)
            if key is None:
                converter.problems.append(_unknown_variable(name))
                continue
            if key.env in environ:
                converter.problems.append(f"{name}: {key.env} is set as well; set one of them")
                continue
            try:
                text = Path(text).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                # the name is not shown: some put the secret itself there
                converter.problems.append(f"{name}: the file it names cannot be read")
                continue
            if key.shape.item is not None and key.shape.item.is_text and not text.startswith("["):
                # one secret a line, or one key of many lines
                items = [text] if PEM in text else text.splitlines()
                text = msgspec.json.encode(items).decode()
        _add(written, key, text, name, converter)
    return written


def from_flags(assignments: Iterable[str], converter: Converter) -> dict[str, Written]:
    """What ``--set section.key=value`` says, by key."""
    written: dict[str, Written] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        path = path.strip()
        if not equals:
            # not shown: who forgets the equals sign may have written a secret
            converter.problems.append(f"{FLAG}: must be section.key=value")
        elif path in KEYS:
            _add(written, KEYS[path], text.strip(), FLAG, converter)
        else:
            converter.unknown(path)
    return written


def _add(
    written: dict[str, Written], key: ConfigKey, text: str, origin: str, converter: Converter
) -> None:
    """Take a value written as text: plainly for strings, as JSON for all else."""
    value: Any = text
    if not key.shape.is_text:
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            if key.shape.item is not None:
                converter.problems.append(
                    f"{key.path}: is not JSON; allowed: {key.shape.allowed()} as JSON (from {origin})"
                )
                return
    written[key.path] = Written(value, origin)


def _secret_key(name: str) -> ConfigKey | None:
    """The key whose secret a variable names the file of."""
    key = BY_ENV.get(name.removesuffix(_SECRET_FILE)) if name.endswith(_SECRET_FILE) else None
    return key if key is not None and key.shape.holds_secret else None


def _unknown_variable(name: str) -> str:
    files = [name + _SECRET_FILE for name in BY_ENV if name != CHANNELS_VARIABLE]
    secret_files = [name for name in files if _secret_key(name)]
    known = [variable.removeprefix(PREFIX) for variable in (*BY_ENV, *secret_files)]
    near = nearest(name.removeprefix(PREFIX), known)  # what all have in common would make all alike
    return f"{name}: unknown key" + (f"; did you mean {PREFIX}{near}?" if near else "")
