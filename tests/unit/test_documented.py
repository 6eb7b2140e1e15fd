"""What a user can name is documented, and what is documented can be named."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from prometheus_client import CollectorRegistry

from docs.site import DOCS, LINK, ROOT
from gateway.api.operations import OPERATIONS
from gateway.auth.refusal import TokenRefusal
from gateway.bus.refusals import RefusalKind
from gateway.cli.commands import app
from gateway.config.keys import KEYS, keys_of
from gateway.config.sections import ChannelSettings
from gateway.console.pages import ROOT as CONSOLE
from gateway.errors import HistoryProblem
from gateway.history.resume import Loss
from gateway.metrics import Metrics, SupervisorMetrics
from gateway.transport import upgrade as websocket
from gateway.transport.longpoll import requests as longpoll
from gateway.transport.sse import requests as sse
from tests.docs.blocks import blocks
from tests.unit.config.loading import load_config

PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / DOCS).rglob("*.md"))]
HANDBOOK = ROOT / DOCS / "cli.md"
GATEWAY: Any = typer.main.get_command(app)
COMMANDS = GATEWAY.commands

SECTIONS = sorted({path.partition(".")[0] for path in KEYS})
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def section(page: str, heading: str) -> str:
    """The text below a heading, down to the next."""
    text = (ROOT / DOCS / page).read_text()
    level = heading.partition(" ")[0]
    return re.split(rf"^#{{1,{len(level)}}} ", text.split(f"\n{heading}\n")[1], flags=re.MULTILINE)[
        0
    ]


def first_cells(text: str) -> set[str]:
    """What the first cells of a table's rows have in code: a cell may have several."""
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def code(page: Path) -> list[str]:
    """Everything a page has in code: spans, and the lines of its blocks."""
    text = page.read_text()
    lines = [line for block in blocks(page) for line in block.text.splitlines()]
    return lines + re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )


def typed(page: Path) -> Iterator[list[str]]:
    """The words of each ``gateway`` command a page shows."""
    for line in code(page):
        command = re.sub(r"\\?[\[\]…]|#.*", "", line.strip().removeprefix("$ "))
        found = re.match(r"(?:\.venv/bin/)?gateway (?=[a-z-])", command)
        if found:
            try:
                yield shlex.split(command[found.end() :])
            except ValueError:  # a quote that ends on another line
                yield command[found.end() :].split()


@each_page
def test_keys_that_are_named_exist(page: Path) -> None:
    known = set(KEYS) | {f"channels.{key.name}" for key in keys_of(ChannelSettings)}
    named = re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)(?: =[^`]*)?`", page.read_text())
    variables = set(re.findall(r"\bGATEWAY_[A-Z]+__[A-Z_]+\b", page.read_text()))
    exist = {f"GATEWAY_{path.upper().replace('.', '__')}" for path in KEYS}

    assert [name for name in named if name not in known] == []
    assert {
        name for name in variables if {name, name.removesuffix("_FILE")}.isdisjoint(exist)
    } == set()


@each_page
def test_configurations_that_are_shown_can_be_used(page: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(filled(block.text))

        load_config(file, environ={})


def filled(configuration: str) -> str:
    """With something in place of what is left to the reader."""
    return configuration.replace("whsec_…", f"whsec_{'A' * 44}").replace("…", "x" * 40)


@each_page
def test_metrics_that_are_named_exist_with_their_labels(page: Path) -> None:
    known = exported()
    for name, labels in re.findall(r"`gateway_([a-z_]+)(\{[^}`]*\})?", page.read_text()):
        family = re.sub(r"_(count|sum|bucket)$", "", name)
        assert {name, family} & known.keys(), name
        of = known.get(name, known.get(family, set()))
        assert set(re.findall(r"(\w+)(?:=|,|\})", re.sub(r'"[^"]*"', "", labels))) <= of, labels


def exported() -> dict[str, set[str]]:
    """The labels of each metric, which is named without ``gateway_``."""
    metrics, supervisor = Metrics(), SupervisorMetrics()
    found: dict[str, set[str]] = {"build_info": {"version"}}
    for metric in (*vars(metrics).values(), *vars(supervisor).values()):
        if hasattr(metric, "collect") and not isinstance(metric, CollectorRegistry):
            [family] = metric.collect()
            suffix = "_total" if family.type == "counter" else ""
            labels = set(getattr(metric, "_labelnames", ()))
            found[family.name.removeprefix("gateway_") + suffix] = labels
    return found


def test_reasons_of_a_lost_position_are_those_of_the_code() -> None:
    table = section("resume.md", "## What a client asks and is answered").split("| `reason` |")[-1]

    assert first_cells(table) == set(get_args(Loss))


def test_what_a_bus_server_may_refuse_is_explained() -> None:
    assert first_cells(section("operations.md", "### What the server refuses")) == set(RefusalKind)


def test_reasons_of_a_refused_connect_are_explained() -> None:
    families = [f for f in Metrics().registry.collect() if f.name == "gateway_connects"]
    counted = {sample.labels["reason"] for family in families for sample in family.samples}
    table = section("troubleshooting.md", "### What the reasons of a refused connect mean")

    assert first_cells(table) == counted - set(TokenRefusal) - {""}


def test_reasons_of_readiness_are_explained() -> None:
    [cell] = re.findall(
        r"^\| `/readyz` \|(.*)\|$", section("operations.md", "## Two listeners"), re.MULTILINE
    )
    listed = set(re.findall(r"`([a-z_]+)`", cell))

    assert listed == doubts()
    assert first_cells(section("troubleshooting.md", "### readyz is red")) == doubts()


def doubts() -> set[str]:
    """What the code's own doubts are: the words that functions of these names return."""
    found = {f"history_{problem}" for problem in get_args(HistoryProblem)}
    for path in (ROOT / "gateway").rglob("*.py"):
        tree = ast.parse(path.read_text())
        constants = {
            node.target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (
                node.name == "doubt" or (node.name, path.stem) == ("refusal", "connections")
            ):
                found |= set(returned(node, constants))
    return found


def returned(function: ast.FunctionDef, constants: dict[str, Any]) -> Iterator[str]:
    """Words that a function returns, as they are or by the name of a constant."""
    for statement in ast.walk(function):
        if isinstance(statement, ast.Return) and statement.value is not None:
            value = statement.value
            for node in [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]:
                word = constants.get(node.id) if isinstance(node, ast.Name) else None
                if isinstance(node, ast.Constant):
                    word = node.value
                if isinstance(word, str):
                    yield word


def test_routes_are_those_of_the_code() -> None:
    table = (ROOT / DOCS / "api.md").read_text().split("\n## ")[0]
    listed = re.findall(r"^\| \[?`((?:GET|POST|DELETE) /[^`]*)`", table, re.MULTILINE)

    assert sorted(listed) == sorted(f"{each.method} {each.path}" for each in OPERATIONS)


def test_routes_of_clients_are_those_of_the_code() -> None:
    served = {*websocket.PATHS, *longpoll.PATHS, *sse.PATHS}
    named = set(re.findall(r"`?(/socket/+[a-z]+)", (ROOT / DOCS / "protocol.md").read_text()))

    assert named == {path for path in served if not path.endswith("/")}


@each_page
def test_routes_that_are_named_exist(page: Path) -> None:
    patterns = [
        (each.method, re.compile(re.sub(r"\{\w+\}", r"[^/]+", each.path))) for each in OPERATIONS
    ]
    for line in code(page):
        for method, path in re.findall(r"\b(GET|POST|DELETE) (/v1/[^\s?\[`]*)", line):
            assert any(m == method and p.fullmatch(path) for m, p in patterns), f"{method} {path}"
        for path in re.findall(r"127\.0\.0\.1:4001(/[^\s?\"']*)", line):
            assert path == CONSOLE or any(p.fullmatch(path) for _, p in patterns), path


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_shown(name: str) -> None:
    assert any(words[:1] == [name] for page in PAGES for words in typed(page))


@each_page
def test_commands_that_are_shown_exist_with_their_options(page: Path) -> None:
    for words in typed(page):
        command = GATEWAY if words[0].startswith("-") else COMMANDS.get(words[0])
        assert command is not None, words
        known = {option for parameter in command.params for option in parameter.opts}
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known | {"--help"}, words


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_page_on_commands_has_every_option(name: str) -> None:
    text = HANDBOOK.read_text()
    options = [o for p in COMMANDS[name].params for o in p.opts if o.startswith("--")]

    assert [option for option in options if option not in text] == []


def test_the_site_lists_every_page() -> None:
    listed = re.findall(
        r"^ +- (?:[\w. ]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    pages = {path.relative_to(ROOT / DOCS).as_posix() for path in (ROOT / DOCS).rglob("*.md")}
    own = [name for name in listed if not name.startswith("repository/")]

    assert set(own) == pages
    assert len(own) == len(set(own))
    assert all(
        (ROOT / name.removeprefix("repository/")).exists() for name in listed if name not in own
    )


def test_figures_that_plans_go_by_are_measured() -> None:
    bench = (ROOT / "bench/README.md").read_text()
    rows = re.findall(
        r"\| ([\d.]+) \| \S+ \| `(\w+)` \|", section("scaling.md", "## What was measured")
    )

    assert len(rows) > 10
    for figure, part in rows:
        tables = re.findall(rf"<!-- (?:beside )?{part}: begin -->(.*?)<!--", bench, re.DOTALL)
        assert any(re.search(rf"(?<![\d.,]){figure}(?![\d.,])", t) for t in tables), (figure, part)


def test_links_are_recognised_by_the_site() -> None:
    assert LINK.findall("[a](b.md#c), [d](https://e.example), [f](#g)") == [("](", "b.md", "#c)")]
