"""Loads the configuration: flags come before the environment, that before a TOML file and defaults."""

import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.config.check import impossible
from gateway.config.convert import Converter, Invalid
from gateway.config.dev import dev_overrides
from gateway.config.keys import KEYS
from gateway.config.masking import masked
from gateway.config.sections import SECTIONS, Config
from gateway.config.sources import FILE_VARIABLE, Written, from_environment, from_file, from_flags
from gateway.errors import ConfigError

DEFAULT: Final = "default"
"""Origin of a value nobody wrote."""


class Loaded(msgspec.Struct, frozen=True):
    """A configuration and where it comes from.

    Attributes:
        file: Path of the TOML file; None without one.
        origins: For each key: the file, the variable, the flag, or ``default``.
    """

    config: Config
    file: str | None
    origins: Mapping[str, str]


def load_config(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    assignments: Sequence[str] = (),
    dev: bool = False,
    also: Callable[[Config], Iterable[str]] = lambda _: (),
) -> Loaded:
    """Read the configuration, and check it.

    Args:
        path: The TOML file; None for the one that ``GATEWAY_CONFIG`` names, if any.
        environ: None for the process's own.
        assignments: ``section.key=value`` each.
        dev: Whether to open everything, on this machine only.
        also: Names further problems, to be told together with all others.

    Raises:
        ConfigError: With all that is wrong, never with a secret.
    """
    environ = os.environ if environ is None else environ
    file = os.fspath(path) if path else environ.get(FILE_VARIABLE) or None
    converter = Converter()
    written = from_file(file, converter) if file else {}
    written |= from_environment(environ, converter)
    flags = from_flags(assignments, converter)
    if dev:
        written |= dev_overrides(written | flags)
    written |= flags
    values = _convert(written, converter, file)
    config = _assemble(values, dev=dev)
    # a key whose value is unusable has its default now, and nothing follows from that
    unusable = written.keys() - values.keys()
    problems = converter.problems + [
        finding.text for finding in impossible(config) if unusable.isdisjoint(finding.keys)
    ]
    problems += also(config)
    if problems:
        raise ConfigError(*problems)
    origins = {key: written[key].origin if key in written else DEFAULT for key in KEYS}
    return Loaded(config, file, origins)


def effective(loaded: Loaded) -> Iterator[tuple[str, Any, str]]:
    """Each key with its value, secrets masked, and where it comes from."""
    sections = msgspec.to_builtins(loaded.config)
    for path, key in KEYS.items():
        section, _, name = path.partition(".")
        value = sections[section][name] if name else sections[section]
        yield path, masked(value, key.shape), loaded.origins[path]


def resolve_replica(config: Config) -> Config:
    """The configuration with a name for this replica: the one configured, or a new one.

    The random end tells a replica from the one that had the host's name before it.
    """
    if config.server.replica:
        return config
    name = f"{socket.gethostname()}-{secrets.token_hex(3)}"
    return msgspec.structs.replace(
        config, server=msgspec.structs.replace(config.server, replica=name)
    )


def _convert(
    written: Mapping[str, Written], converter: Converter, file: str | None
) -> dict[str, Any]:
    values = {}
    for path, key in KEYS.items():
        if path in written:
            origin = written[path].origin
            try:
                values[path] = converter.value(
                    path, written[path].value, key.shape, "" if origin == file else origin
                )
            except Invalid:
                continue
    return values


def _assemble(values: Mapping[str, Any], *, dev: bool) -> Config:
    sections: dict[str, Any] = {}
    for section, table in SECTIONS.items():
        prefix = f"{section}."
        sections[section] = table(
            **{
                path.removeprefix(prefix): value
                for path, value in values.items()
                if path.startswith(prefix)
            }
        )
    return Config(**sections, channels=values.get("channels", ()), dev=dev)
