"""Looking at a configuration: check-config and config."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.support.keys import ec, ed, private_pem, public_pem

Invoke = Callable[..., Result]

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"
FILE = f"""
[auth]
secrets = ["{SECRET}"]
[[api.keys]]
name = "backend"
key = "{SECRET}"
scopes = ["publish"]
[[channels]]
pattern = "room:*"
push = "broadcast"
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A configuration nothing is wrong with."""
    path = tmp_path / "gateway.toml"
    path.write_text(FILE)
    return str(path)


def test_a_sound_configuration_passes_without_warnings(invoke: Invoke, file: str) -> None:
    result = invoke("check-config", "--config", file)

    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "the configuration is valid\n",
        "",
    )


def test_warnings_are_told_and_do_no_harm(invoke: Invoke, file: str) -> None:
    result = invoke("check-config", "--config", file, "--set", "channels=[]")

    assert result.exit_code == 0
    assert result.stderr.startswith("warning: channels: is empty")


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_short_secret_is_refused_but_in_dev(invoke: Invoke, file: str, command: str) -> None:
    """As a placeholder is, which everybody knows."""
    short = ("--config", file, "--set", 'auth.secrets=["…"]')
    refused = invoke(command, *short)

    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: auth.secrets[0]: is shorter than 32 bytes")
    assert "…" not in refused.output
    assert invoke("check-config", "--dev", *short).exit_code == 0


def test_what_is_wrong_with_keys_and_files_is_told_in_the_same_pass(
    invoke: Invoke, file: str
) -> None:
    wrong = {
        "log.format": "xml",
        "server.tls_key": "/nowhere/key",
        "server.tls_certificate": "/nowhere/certificate",
        "auth.public_keys": '["/nowhere/key"]',
        "auth.secrets": '["short"]',
        "limits.outbound_buffer_bytes": "1",
    }
    arguments = [part for key in wrong for part in ("--set", f"{key}={wrong[key]}")]
    result = invoke("check-config", "--config", file, *arguments)

    told = {
        line.split()[1].partition(":")[0].partition("[")[0] for line in result.stderr.splitlines()
    }
    assert told == wrong.keys()


def test_all_that_is_wrong_is_told_line_by_line(invoke: Invoke, file: str) -> None:
    result = invoke(
        "check-config", "--config", file, "--set", "log.levels=x", "--set", "log.format=xml"
    )

    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: log.levels: unknown key; did you mean log.level?",
        'error: log.format: "xml" is not allowed; allowed: auto, json, console (from --set)',
    ]


def test_a_file_that_is_missing_is_told(invoke: Invoke, file: str) -> None:
    result = invoke(
        "check-config", "--config", file, "--set", "server.tls_key=/nowhere/k",
        "--set", "server.tls_certificate=/nowhere/c",
    )  # fmt: skip

    assert result.exit_code == 2
    assert 'server.tls_key: "/nowhere/k" is not a file' in result.stderr


def test_the_rule_of_a_topic_is_told(invoke: Invoke, file: str) -> None:
    result = invoke("check-config", "--config", file, "--topic", "room:42")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == (
        'topic "room:42" matches channels[0], "room:*":'
        " join authenticated, push broadcast, echo true, presence false, history none,"
        " slow_consumer disconnect"
    )


def test_the_rule_of_a_topic_is_told_with_all_it_asks_for(invoke: Invoke) -> None:
    channels = [
        {
            "pattern": "org:{org}:room:*",
            "join": "upstream",
            "push": "upstream",
            "presence": "count",
        },
        {"pattern": "*", "join": "token", "upstream_url": "http://other"},
    ]
    rules = (
        "--set", f"channels={json.dumps(channels)}", "--set", "upstream.url=http://u:hunter2@backend",
    )  # fmt: skip

    special = invoke("check-config", *rules, "--topic", "org:7:room:1").stdout
    general = invoke("check-config", *rules, "--topic", "user:42").stdout
    personal = invoke("check-config", "--topic", "user:42").stdout

    assert special.splitlines()[:3] == [
        (
            'topic "org:7:room:1" matches channels[0], "org:{org}:room:*": join upstream, push upstream,'
            " echo true, presence count, history none, slow_consumer disconnect"
        ),
        "it is joined only with a token that says org = 7",
        "its backend is http://***@backend",
    ]
    assert 'matches channels[1], "*": join token' in general
    assert "its backend" not in general, "it is not asked"
    assert 'matches the built-in rule of personal topics, "user:{sub}"' in personal
    assert "a token that says sub = 42" in personal


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("public_keys", private_pem(ed("login")), "must be a public key, and is a private one"),
        ("public_keys", "/nowhere/hunter2.pem", "is neither PEM text nor the path of a file"),
        ("secrets", public_pem(ed("login")), "is not allowed; it is no secret but a key"),
    ],
)
def test_a_bad_key_is_named_and_not_shown(
    invoke: Invoke, file: str, key: str, value: str, problem: str
) -> None:
    arguments = ("--config", file, "--set", f"auth.{key}={json.dumps([value])}")

    result = invoke("check-config", *arguments)

    assert result.exit_code == 2
    assert f"error: auth.{key}[0]: {problem}" in result.stderr
    assert "hunter2" not in result.output
    assert value not in invoke("config", *arguments).output or value.startswith("/")


def test_public_keys_are_read_from_text_and_files(
    invoke: Invoke, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "login.pem"
    path.write_text(public_pem(ed("login")))
    in_list = ("--set", f"auth.public_keys={json.dumps([str(path), public_pem(ec('login'))])}")

    assert invoke("check-config", "--config", file, *in_list).exit_code == 0
    shown = invoke("config", "--config", file, *in_list).stdout
    assert f'auth.public_keys = ["{path}", "***"]  # --set' in shown.splitlines()
    monkeypatch.setenv("GATEWAY_AUTH__PUBLIC_KEYS_FILE", str(path))
    assert invoke("check-config", "--config", file).exit_code == 0


@pytest.mark.parametrize("topic", ["lobby", "phoenix"])
def test_a_topic_without_a_rule_is_a_failure(invoke: Invoke, file: str, topic: str) -> None:
    result = invoke("check-config", "--config", file, "--topic", topic)

    assert result.exit_code == 1
    assert "matches no channel rule" in result.stderr


def test_the_reserved_topic_hits_no_rule_even_where_all_are_open(invoke: Invoke) -> None:
    assert invoke("check-config", "--dev", "--topic", "phoenix").exit_code == 1


def test_the_memory_bus_needs_no_connection(invoke: Invoke, file: str) -> None:
    result = invoke("check-config", "--config", file, "--connect")

    assert result.exit_code == 0
    assert "the bus is in memory" in result.stdout


def test_values_are_shown_with_their_origin_and_without_secrets(
    invoke: Invoke, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_BUS__URL", "nats://user:hunter2@host:4222")

    result = invoke("config", "--config", file, "--set", "limits.connections=7")

    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert 'bus.url = "nats://***@host:4222"  # GATEWAY_BUS__URL' in lines
    assert "limits.connections = 7  # --set" in lines
    assert f'auth.secrets = ["***"]  # {file}' in lines
    assert 'log.level = "info"  # default' in lines
    assert "hunter2" not in result.output
    assert tomllib.loads(result.stdout)["api"]["keys"][0]["key"] == "***"


@pytest.mark.parametrize(
    ("form", "start"), [("toml", "# Every key"), ("markdown", "\n## `[server]`")]
)
def test_the_documentation_of_all_keys_is_printed(invoke: Invoke, form: str, start: str) -> None:
    assert invoke("config", "--reference", form).stdout.startswith(start)
