"""The keys of the configuration, read from the Structs that define them."""

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal

import msgspec

from gateway.config.fields import SECRET, SYNTAX
from gateway.config.sections import CHANNELS, SECTIONS, ChannelSettings
from gateway.config.syntax import Syntax

REQUIRED: Final = msgspec.NODEFAULT
"""Default of a key that has none."""


class Shape(msgspec.Struct, frozen=True):
    """What a value must be.

    Attributes:
        bounded: The type with all bounds, for msgspec.
        base: The type without them.
        options: The values a Literal allows, else empty.
        item: What the items of a list must be, else None.
        table: The Struct that describes a table, else None.
        optional: Whether the table may be absent.
        syntax: A further check of a string, else None.
        secret: ``"all"``, ``"userinfo"``, ``"pem"``, or empty for what may be shown.
        example: A value for the documentation of a key without default.
    """

    bounded: Any
    base: Any
    options: tuple[str, ...]
    item: "Shape | None"
    table: type[msgspec.Struct] | None
    optional: bool
    syntax: Syntax | None
    secret: str
    description: str
    example: Any
    bounds: tuple[msgspec.Meta, ...]

    @property
    def is_text(self) -> bool:
        """Whether a value is written plainly in the environment, not as JSON."""
        return self.base is str or bool(self.options)

    @property
    def holds_secret(self) -> bool:
        """Whether a value, or something in it, is never shown."""
        if self.table is not None:
            return any(key.shape.holds_secret for key in keys_of(self.table))
        return bool(self.secret) or (self.item is not None and self.item.holds_secret)

    def allowed(self) -> str:
        """The allowed values in words."""
        if self.options:
            return ", ".join(self.options)
        if self.item is not None:
            if self.item.table is not None:
                return "a list of tables"
            return (
                "a list of strings" if self.item.base is str else f"a list of {self.item.allowed()}"
            )
        if self.table is not None:
            keys = [f"{key.name}, {key.shape.allowed()}" for key in keys_of(self.table)]
            return f"a table with {', and '.join(keys)}"
        if self.base is bool:
            return "true or false"
        if typing.get_origin(self.base) in {types.UnionType, typing.Union}:
            return 'true, false or "count"'
        if self.base is str:
            return f"a string{self._range()}"
        return f"a {'whole ' if self.base is int else ''}number{self._range()}"

    def _range(self) -> str:
        texts = []
        for meta in self.bounds:
            texts += [
                text.format(f"{bound:,}")
                for text, bound in (
                    (" above {}", meta.gt),
                    (" from {}", meta.ge),
                    (" to {}", meta.le),
                    (" of at most {} characters", meta.max_length),
                )
                if bound is not None
            ]
            if meta.min_length:
                texts.insert(0, " that is not empty")
        return "".join(texts)


class ConfigKey(msgspec.Struct, frozen=True):
    """One key: ``path`` is ``server.public`` or ``channels``, within lists ``api.keys[].name``."""

    path: str
    name: str
    shape: Shape
    default: Any

    @property
    def env(self) -> str:
        """The environment variable that overrides it."""
        return "GATEWAY_" + self.path.upper().replace(".", "__")


def shape_of(annotated: Any) -> Shape:  # noqa: ANN401 -- types with bounds have no common type
    """Read a type and its annotations."""
    base = annotated
    metas: tuple[msgspec.Meta, ...] = ()
    if typing.get_origin(annotated) is Annotated:
        base, *rest = typing.get_args(annotated)
        metas = tuple(meta for meta in rest if isinstance(meta, msgspec.Meta))
    optional = isinstance(base, types.UnionType) and types.NoneType in typing.get_args(base)
    if optional:
        base = next(kind for kind in typing.get_args(base) if kind is not types.NoneType)
    marks: dict[str, Any] = {}
    for meta in metas:
        marks |= meta.extra or {}
    origin = typing.get_origin(base)
    secret = marks.get(SECRET, "")
    return Shape(
        bounded=annotated,
        base=base,
        options=typing.get_args(base) if origin is Literal else (),
        item=shape_of(typing.get_args(base)[0]) if origin is tuple else None,
        table=base if isinstance(base, type) and issubclass(base, msgspec.Struct) else None,
        optional=optional,
        syntax=marks.get(SYNTAX),
        secret="all" if secret is True else secret,
        description=next((meta.description for meta in metas if meta.description), ""),
        example=next((meta.examples[0] for meta in metas if meta.examples), None),
        bounds=metas,
    )


def keys_of(table: type[msgspec.Struct], prefix: str = "") -> Iterator[ConfigKey]:
    """The keys of a table, in order."""
    for field in msgspec.structs.fields(table):
        yield ConfigKey(
            path=prefix + field.name,
            name=field.name,
            shape=shape_of(field.type),
            default=field.default,
        )


def _all() -> Iterator[ConfigKey]:
    for section, table in SECTIONS.items():
        if (
            section == "sessions"
        ):  # the file reads best with the rules of channels before their limits
            shape = shape_of(tuple[ChannelSettings, ...])
            yield ConfigKey(path=CHANNELS, name=CHANNELS, shape=shape, default=())
        yield from keys_of(table, f"{section}.")


KEYS: Final = types.MappingProxyType({key.path: key for key in _all()})
"""All keys that can be overridden one by one, in the order of the file."""

BY_ENV: Final = types.MappingProxyType({key.env: key for key in KEYS.values()})
"""The same by the names of environment variables."""
