"""The architecture as a test: who may import whom, and which library is known where."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "gateway"

LAYERS = [
    {"__main__"},
    {"cli"},
    {"workers"},
    {"app"},
    {"console"},
    {"api", "lifecycle", "demo"},
    {"transport", "live"},
    {"channels"},
    {"sessions", "tail", "topics"},
    {"relay", "cluster"},
    {"history", "listener_check"},
    {"hub", "bus", "auth", "config", "tracker", "upstream"},
    {"protocol", "audience"},
    {
        "device",
        "errors",
        "exposition",
        "inflight",
        "leases",
        "log",
        "metrics",
        "pacer",
        "retention",
        "singleflight",
        "wheel",
        "__init__",
    },
]
"""A part imports parts of lower layers, and its own; leaves may be imported by all but protocol."""

HOMES = {
    "aiohttp": {"transport", "api", "console", "app", "demo", "live", "cli", "upstream", "workers"},
    "yarl": {"transport", "upstream"},
    "websockets": {"transport"},
    "aiohttp_jinja2": {"console"},
    "nats": {"bus"},
    "prometheus_client": {"exposition", "metrics"},
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


@cache
def edges() -> dict[Path, set[Path]]:
    """Which modules each module imports, for types alone included."""
    known = {path for _, path in modules()}

    def module_of(dotted: str) -> Path | None:
        """The module a dotted name is, or is a name of."""
        stem = ROOT.parent.joinpath(*dotted.split("."))
        candidates = (stem.with_suffix(".py"), stem / "__init__.py")
        found = next((path for path in candidates if path in known), None)
        if found is not None or "." not in dotted:
            return found
        return module_of(dotted.rpartition(".")[0])

    return {
        path: {
            target
            for name in imports(path)
            if name.startswith("gateway.") and (target := module_of(name)) is not None
        }
        - {path}
        for path in known
    }


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Names that import each other in a circle; empty where there is none."""
    order = TopologicalSorter(graph)
    try:
        order.prepare()
    except CycleError as found:
        names: list[str] = found.args[1]
        return names
    return []


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for _, path in modules()}),
    ids=lambda folder: str(folder.relative_to(ROOT.parent)),
)
def test_nothing_in_a_folder_imports_in_a_circle(folder: Path) -> None:
    """A folder's modules and sub-folders, each sub-folder taken as one."""

    def room(path: Path) -> str | None:
        """What of the folder a module belongs to."""
        return path.relative_to(folder).parts[0] if path.is_relative_to(folder) else None

    graph: dict[str, set[str]] = {}
    for path, targets in edges().items():
        if (name := room(path)) is not None:
            there = {other for target in targets if (other := room(target)) is not None}
            graph.setdefault(name, set()).update(there - {name})

    assert circle(graph) == []


def drawn() -> str:
    """Who imports whom, as Mermaid: without leaves, and arrows that follow from others."""
    leaves = LAYERS[-1]
    graph: dict[str, set[str]] = {}
    part_of = {path: part for part, path in modules()}
    for path, targets in edges().items():
        part = part_of[path]
        if part not in leaves | {"__main__"}:
            there = {part_of[target] for target in targets} - leaves - {part}
            graph.setdefault(part, set()).update(there)

    def below(part: str) -> set[str]:
        """All that a part leads to."""
        return graph[part].union(*map(below, graph[part]))

    arrows = [
        f"  {part} --> {target}"
        for part in sorted(graph, key=lambda part: (layer(part), part))
        for target in sorted(graph[part])
        if not any(target in below(other) for other in graph[part] - {target})
    ]
    return "\n".join(["```mermaid", "graph TD", *arrows, "```"])


def test_the_architecture_shows_who_imports_whom() -> None:
    document = (ROOT.parent / "ARCHITECTURE.md").read_text()
    shown = document.split("<!-- imports: begin -->")[1].split("<!-- imports: end -->")[0]

    assert shown.strip() == drawn()


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) != []
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_nats_is_known_to_the_bus_alone() -> None:
    knowing = {
        path.name for _, path in modules() if any(n.split(".")[0] == "nats" for n in imports(path))
    }

    assert knowing <= {"nats.py", "client.py", "buckets.py"}


def public_types(path: Path) -> Iterator[str]:
    """Names of the classes and type aliases a module defines for others."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef):
            name = node.name
        elif isinstance(node, ast.AnnAssign) and "TypeAlias" in ast.unparse(node.annotation):
            name = ast.unparse(node.target)
        else:
            continue
        if not name.startswith("_"):
            yield name


def test_a_public_type_has_a_name_of_its_own() -> None:
    homes = defaultdict(list)
    for _, path in modules():
        for name in public_types(path):
            homes[name].append(str(path.relative_to(ROOT)))

    assert len(homes) > 100
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_module_is_a_grab_bag() -> None:
    for _, path in modules():
        assert path.stem not in {"utils", "helpers", "common", "misc"}
        assert len(path.read_text().splitlines()) <= 500, path
