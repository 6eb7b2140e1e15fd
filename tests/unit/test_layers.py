"""The architecture as a test: who may import whom, and which library is known where."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "gateway"

LAYERS = [
    {"__main__"},
    {"cli"},
    {"app"},
    {"api", "lifecycle", "demo"},
    {"transport"},
    {"sessions"},
    {"relay", "cluster"},
    {"history"},
    {"hub", "bus", "auth", "config", "tracker", "upstream"},
    {"protocol"},
    {"device", "errors", "metrics", "log", "__init__"},
]
"""A part imports parts of lower layers, and its own; leaves may be imported by all but protocol."""

HOMES = {
    "aiohttp": {"transport", "api", "app", "demo", "cli", "upstream"},
    "yarl": {"upstream"},
    "aiohttp_jinja2": {"api", "demo"},
    "nats": {"bus"},
    "prometheus_client": {"metrics"},
    "typer": {"cli"},
    "uvloop": {"app"},
    "jwt": {"auth"},
    "cryptography": {"auth"},
}
"""Libraries that only some parts may know."""

PURE = {"asyncio", "time", "logging", "socket", "threading", "random", "structlog"}
"""What has no place in ``protocol``: it takes the time as an argument and starts nothing."""


def modules() -> Iterator[tuple[str, Path]]:
    """Each module of the gateway with the part it belongs to."""
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT)
        yield (relative.parts[0] if len(relative.parts) > 1 else relative.stem), path


@cache
def imports(path: Path) -> set[str]:
    """Dotted names a module imports, at its head or anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def layer(part: str) -> int:
    """Height of a part, 0 on top."""
    return next(height for height, parts in enumerate(LAYERS) if part in parts)


@pytest.mark.parametrize(
    ("part", "path"),
    list(modules()),
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_imports_go_downwards(part: str, path: Path) -> None:
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "gateway":
            target = rest.split(".")[0]
            if target in {"", "__version__", part}:
                continue
            assert layer(target) > layer(part), f"{part} must not import {target}"
            assert part != "protocol", f"protocol must not import {target}"
        elif top in HOMES:
            assert part in HOMES[top], f"{part} must not import {top}"
        elif part == "protocol":
            assert top not in PURE, f"protocol must not import {top}"


def test_nats_is_known_to_the_bus_alone() -> None:
    knowing = {
        path.name for _, path in modules() if any(n.split(".")[0] == "nats" for n in imports(path))
    }

    assert knowing <= {"nats.py", "client.py", "buckets.py"}


def test_no_module_is_a_grab_bag() -> None:
    for _, path in modules():
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        assert len(path.read_text().splitlines()) <= 350, path
