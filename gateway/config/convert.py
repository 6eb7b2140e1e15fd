"""Converts written values to the types of their keys, and collects everything that is wrong."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any, Final

import msgspec

from gateway.config.keys import KEYS, REQUIRED, Shape, keys_of
from gateway.config.masking import shown
from gateway.config.sections import CHANNELS, SECTIONS

_NO_VALUE: Final = object()


class Invalid(Exception):
    """The value cannot be used; what is wrong with it was noted."""


class Converter:
    """Converts values one by one; ``problems`` has what was wrong so far, one line each."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def value(self, path: str, value: Any, shape: Shape, origin: str = "") -> Any:  # noqa: ANN401
        """A value in the type of its key.

        Args:
            origin: Where it was written, for the message; empty where that goes without saying.

        Raises:
            Invalid: It has problems.
        """
        before = len(self.problems)
        converted = self._convert(path, value, shape)
        if len(self.problems) == before:
            return converted
        if origin:
            self.problems[before:] = [f"{line} (from {origin})" for line in self.problems[before:]]
        raise Invalid

    def unknown(self, path: str) -> None:
        """Note a key that does not exist. Its value may be a secret, so it is not shown."""
        self.problems.append(unknown(path))

    def _convert(self, path: str, value: Any, shape: Shape) -> Any:  # noqa: ANN401
        if shape.optional and value is None:  # as JSON may say it
            return None
        if shape.table is not None:
            return self._table(path, value, shape.table)
        if shape.item is not None and isinstance(value, list):
            item = shape.item
            items = [self._convert(f"{path}[{n}]", one, item) for n, one in enumerate(value)]
            if any(item is _NO_VALUE for item in items):
                return _NO_VALUE
            value = items
        try:
            converted = msgspec.convert(value, shape.bounded)
        except msgspec.ValidationError:
            # its text is msgspec's own; and the value must be masked
            return self._refuse(f"{path}: {shown(value, shape)}", f"allowed: {shape.allowed()}")
        wrong = shape.syntax(converted) if shape.syntax else None
        if wrong:
            return self._refuse(f"{path}: {shown(value, shape)}", f"allowed: {wrong}")
        return converted

    def _table(self, path: str, value: Any, table: type[msgspec.Struct]) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            self.problems.append(f"{path}: must be a table")
            return _NO_VALUE
        keys = {key.name: key for key in keys_of(table)}
        for name in value.keys() - keys.keys():
            self.problems.append(_unknown_name(path, name, keys))
        fields = {}
        for name, key in keys.items():
            if name in value:
                fields[name] = self._convert(f"{path}.{name}", value[name], key.shape)
            elif key.default is REQUIRED:
                self.problems.append(f"{path}.{name}: is missing; allowed: {key.shape.allowed()}")
                fields[name] = _NO_VALUE
        return _NO_VALUE if _NO_VALUE in fields.values() else table(**fields)

    def _refuse(self, what: str, instead: str) -> object:
        self.problems.append(f"{what} is not allowed; {instead}")
        return _NO_VALUE


def unknown(path: str) -> str:
    """What to say of a key that does not exist."""
    section, _, name = path.partition(".")
    if section == "dev":
        return "dev: cannot be configured; give the flag --dev"
    if section == CHANNELS:
        return f"{path}: {CHANNELS} is a list of tables, [[{CHANNELS}]]"
    if section not in SECTIONS:
        homes = [known for known in KEYS if known.endswith(f".{section}")]
        if homes and not name:
            return f"{section}: unknown key" + _hint(homes[0])
        return f"{section}: unknown section" + _hint(nearest(section, (*SECTIONS, CHANNELS)))
    names = [key.partition(".")[2] for key in KEYS if key.startswith(f"{section}.")]
    near = nearest(name, names)
    elsewhere = [known for known in KEYS if known.endswith(f".{name}")]
    if near:
        near = f"{section}.{near}"
    elif elsewhere:
        near = elsewhere[0]
    return f"{path}: unknown key" + (_hint(near) or f"; known: {', '.join(names)}")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def _unknown_name(path: str, name: str, known: Collection[str]) -> str:
    hint = _hint(nearest(name, known)) or f"; known: {', '.join(known)}"
    return f"{path}.{name}: unknown key{hint}"


def _hint(near: str | None) -> str:
    return f"; did you mean {near}?" if near else ""
