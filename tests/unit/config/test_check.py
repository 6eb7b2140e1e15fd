"""What is refused."""

import json
import tomllib
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.config.check import missing_files
from gateway.errors import ConfigError
from gateway.retention import Retention
from tests.unit.config.loading import load_config


def load(toml: str) -> Config:
    """Read TOML by way of flags."""
    assignments = []
    for section, table in tomllib.loads(toml).items():
        if section == "channels":
            assignments.append(f"channels={json.dumps(table)}")
            continue
        for key, value in table.items():
            text = value if isinstance(value, str) else json.dumps(value)
            assignments.append(f"{section}.{key}={text}")
    return load_config(environ={}, assignments=assignments)


def refused(toml: str) -> list[str]:
    """The keys that are complained about, and never a secret."""
    with pytest.raises(ConfigError) as caught:
        load(toml)
    assert "hunter2" not in str(caught.value)
    return [problem.split(": ")[0] for problem in caught.value.problems]


def key(name: str, value: str, scopes: str = '["publish"]') -> str:
    """One API key in TOML."""
    return f'[[api.keys]]\nname = "{name}"\nkey = "{value}"\nscopes = {scopes}\n'


def channel(pattern: str, more: str = "") -> str:
    """One channel rule in TOML."""
    return f'[[channels]]\npattern = "{pattern}"\n{more}\n'


@pytest.mark.parametrize(
    "value",
    [
        "4000",
        ":4000",
        "host",
        "host:",
        "host:x",
        "host:65536",
        "::1:4000",
        "[::1]",
        "[x]:1",
        "a b:1",
    ],
)
def test_a_bad_listen_address_is_refused(value: str) -> None:
    assert refused(f'[server]\npublic = "{value}"') == ["server.public"]


@pytest.mark.parametrize(
    "value", ["0.0.0.0:4000", "[::1]:4000", "[::]:0", "localhost:1", "gateway.internal:80"]
)
def test_a_listen_address_may_be(value: str) -> None:
    assert load(f'[server]\npublic = "{value}"').server.public == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "memory",
        "redis://h:6379",
        "nats://",
        "nats://u:hunter2@",
        "u:hunter2@host:4222",
        "nats://a:4222,",
        "nats://a:4222,memory://",
        "http://u:hunter2@a, nats://b",
        "nats://u:hunter2,x@h:99999",
        "nats://u:hunter2/x@h",
        "nats://hunter2?x@h",
        "nats://hunter2#x@h",
        "nats://u:hun@hunter2@h:x",
    ],
)
def test_a_bad_bus_url_is_refused_without_its_password(value: str) -> None:
    assert refused(f'[bus]\nurl = "{value}"') == ["bus.url"]


@pytest.mark.parametrize(
    "value",
    [
        "memory://",
        "nats://h",
        "nats://u:hunter2@a:4222, tls://b:4222",
        "nats://token@[::1]:4222",
        "nats://to%2Fken@h/",
    ],
)
def test_a_bus_url_may_be(value: str) -> None:
    assert load(f'[bus]\nurl = "{value}"').bus.url == value


@pytest.mark.parametrize(
    "value",
    [
        "https://",
        "app.example.com",
        "https://a/path",
        "//*",
        "//a.*",
        "https://u:p@a",
        "//a:0",
        "//a:99999",
    ],
)
def test_a_bad_origin_is_refused(value: str) -> None:
    assert refused(f'[server]\nallowed_origins = ["*", "{value}"]') == ["server.allowed_origins[1]"]


@pytest.mark.parametrize(
    "value",
    ["*", "https://app.example.com", "http://localhost:3000", "//*.example.com", "//[::1]:80"],
)
def test_an_origin_may_be(value: str) -> None:
    assert load(f'[server]\nallowed_origins = ["{value}"]').server.allowed_origins == (value,)


@pytest.mark.parametrize("value", ["10.0.0.1/8", "10.0.0.0/33", "proxy", ""])
def test_what_is_no_network_is_refused(value: str) -> None:
    assert refused(f'[server]\ntrusted_proxies = ["{value}"]') == ["server.trusted_proxies[0]"]


@pytest.mark.parametrize("value", ["", "*", "a.b", "a b", "ä"])
def test_a_prefix_that_is_no_token_is_refused(value: str) -> None:
    assert refused(f'[bus]\nprefix = "{value}"') == ["bus.prefix"]


@pytest.mark.parametrize(
    "value", ["", "*room", "room:*:a", "room:**", "user:{sub", "user:sub}", "user:{}", "user:{a b}",
              "user:{{sub}}", "user:x{sub}", "user:{sub}x", "user:{sub}{id}", "user:{sub}*"]
)  # fmt: skip
def test_a_bad_pattern_is_refused(value: str) -> None:
    assert refused(channel(value)) == ["channels[0].pattern"]


@pytest.mark.parametrize(
    "value",
    ["*", "room:*", "room*", "lobby", "user:{sub}", "user:{sub}:*", "{org}:user:{sub}:inbox"],
)
def test_a_pattern_may_be(value: str) -> None:
    assert load(channel(value)).channels[0].pattern == value


@pytest.mark.parametrize(
    ("toml", "key"),
    [
        ("[limits]\nmax_message_bytes = 0", "limits.max_message_bytes"),
        ("[limits]\nmax_message_bytes = -1", "limits.max_message_bytes"),
        ("[limits]\nmax_message_bytes = 1.5", "limits.max_message_bytes"),
        ("[limits]\nmax_message_bytes = true", "limits.max_message_bytes"),
        ("[limits]\nmax_message_bytes = 'x'", "limits.max_message_bytes"),
        ("[limits]\nidle_timeout_seconds = 0", "limits.idle_timeout_seconds"),
        ("[drain]\ndelay_seconds = -1", "drain.delay_seconds"),
        ("[server]\nreuse_port = 'yes'", "server.reuse_port"),
        ("[server]\nallowed_origins = {}", "server.allowed_origins"),
        ("[log]\nformat = 'xml'", "log.format"),
        ("[auth]\nsecrets = ['hunter2', '']", "auth.secrets[1]"),
        ("[auth]\nsecrets = [['hunter2']]", "auth.secrets[0]"),
        ("[auth]\nsecrets = {a = 'hunter2'}", "auth.secrets"),
        (key("", "a"), "api.keys[0].name"),
        (key("a", ""), "api.keys[0].key"),
        (key("a", "hunter2 x"), "api.keys[0].key"),
        (key("a", "b", "[]"), "api.keys[0].scopes"),
        (key("a", "b", '["admin"]'), "api.keys[0].scopes[0]"),
        ("[api]\nkeys = ['hunter2']", "api.keys[0]"),
        ("[api]\nkeys = {key = 'hunter2'}", "api.keys"),
        ("[[channels]]\npush = 'deny'", "channels[0].pattern"),
        (channel("a", "push = 'allow'"), "channels[0].push"),
    ],
)
def test_a_value_out_of_range_is_refused(toml: str, key: str) -> None:
    assert refused(toml) == [key]


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        (
            "[server]\ntls_certificate = 'c.pem'",
            'server.tls_key: "" is not allowed; server.tls_certificate is set: set both or none',
        ),
        (
            "[server]\ntls_key = 'k.pem'",
            'server.tls_certificate: "" is not allowed; server.tls_key is set: set both or none',
        ),
        (
            "[server]\ninternal = '0.0.0.0:4000'",
            'server.internal: "0.0.0.0:4000" is not allowed; it must not be the address of server.public',
        ),
        (
            "[bus]\ncredentials_file = 'x'",
            "bus.credentials_file: is set, but bus.url names no NATS server",
        ),
        (
            "[bus]\nurl = 'tls://a,nats://b'\ntls_ca = 'x'",
            "bus.tls_ca: is set, but not every address of bus.url begins with tls://",
        ),
        (
            "[bus]\nurl = 'tls://a'\ntls_certificate = 'x'",
            "bus.tls_certificate: is set, but bus.tls_key is not",
        ),
        (
            "[bus]\nurl = 'tls://a'\ntls_key = 'x'",
            "bus.tls_key: is set, but bus.tls_certificate is not",
        ),
        (
            key("a", "hunter2") + key("a", "b"),
            'api.keys[1].name: "a" is not allowed; api.keys[0] has that name',
        ),
        (
            key("a", "hunter2") + key("b", "hunter2"),
            "api.keys[1].key: *** is not allowed; api.keys[0] has the same key",
        ),
        (
            channel("a") + channel("b") + channel("a"),
            'channels[2].pattern: "a" is not allowed; channels[0] has that pattern',
        ),
        (
            "[limits]\nmax_message_bytes = 2000000",
            ("limits.outbound_buffer_bytes: 1048576 is not allowed;"
            " allowed: at least limits.max_message_bytes, 2000000"),
        ),
        (
            "[limits]\noutbound_total_bytes = 1000",
            ("limits.outbound_total_bytes: 1000 is not allowed;"
            " allowed: at least limits.outbound_buffer_bytes, 1048576"),
        ),
        (
            "[drain]\ndelay_seconds = 1800\nwindow_seconds = 3600",
            ("drain.window_seconds: 3600 is not allowed; with drain.delay_seconds it makes 5400,"
            " allowed: 3600"),
        ),
        (
            channel("a", "join = 'upstream'"),
            'channels[0].join: "upstream" is not allowed; upstream.url names no backend',
        ),
        (
            channel("a", "push = 'upstream'"),
            'channels[0].push: "upstream" is not allowed; upstream.url names no backend',
        ),
        (
            "[upstream]\nevents = ['user.online']",
            "upstream.events: is set, but upstream.url names no backend",
        ),
        (
            "[upstream]\nurl = 'ftp://h'",
            ('upstream.url: "ftp://h" is not allowed;'
            " allowed: an address such as https://backend.example.com/gateway (from --set)"),
        ),
        (
            "[upstream]\nsecrets = ['whsec_dG9vc2hvcnQ=']",
            ("upstream.secrets[0]: *** is not allowed;"
            " allowed: whsec_ followed by 24 to 64 bytes in base64 (from --set)"),
        ),
    ],
)  # fmt: skip
def test_an_impossible_combination_is_refused(toml: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(toml)

    assert caught.value.problems == (problem,)


@pytest.mark.parametrize(
    ("history", "problem"),
    [
        (
            "{ messages = 1 }",
            "channels[0].history.seconds: is missing; allowed: a whole number from 1 to 31,622,400",
        ),
        (
            "{ messages = 0, seconds = 1 }",
            ("channels[0].history.messages: 0 is not allowed;"
            " allowed: a whole number from 1 to 100,000"),
        ),
        (
            "{ messages = 1, seconds = 1, minutes = 1 }",
            "channels[0].history.minutes: unknown key; known: messages, seconds",
        ),
        ("true", "channels[0].history: must be a table"),
    ],
)  # fmt: skip
def test_a_history_that_says_no_sizes_is_refused(history: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(channel("a", f"history = {history}"))

    assert caught.value.problems == (f"{problem} (from --set)",)


def test_a_topic_with_a_history_cannot_drop_messages() -> None:
    kept = "history = { messages = 1, seconds = 1 }\n"

    assert refused(channel("a", kept + 'slow_consumer = "drop"')) == ["channels[0].slow_consumer"]
    [rule] = load(channel("a", kept)).channels
    assert rule.history == Retention(messages=1, seconds=1)


def test_a_history_may_be_absent_in_json_too() -> None:
    config = load_config(environ={"GATEWAY_CHANNELS": '[{"pattern": "a", "history": null}]'})

    assert config.channels[0].history is None


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    there = tmp_path / "cert.pem"
    there.touch()
    config = load(f"[server]\ntls_certificate = '{there}'\ntls_key = '/nowhere/key.pem'")

    assert list(missing_files(config)) == ['server.tls_key: "/nowhere/key.pem" is not a file']
