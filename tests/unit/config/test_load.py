"""Where values come from, and which of them wins."""

import json
from pathlib import Path

import pytest

from gateway.config import Config, resolve_replica
from gateway.config import load_config as load_with_origins
from gateway.errors import ConfigError
from tests.unit.config.loading import load_config

SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"


def problems(
    text: str = "", environ: dict[str, str] | None = None, *assignments: str, path: Path
) -> str:
    """All that is wrong, one line each."""
    file = path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, environ=environ or {}, assignments=assignments)
    return "\n".join(caught.value.problems)


def test_nothing_configured_is_all_defaults() -> None:
    loaded = load_with_origins(environ={})

    assert loaded.config == Config()
    assert loaded.file is None
    assert set(loaded.origins.values()) == {"default"}


def test_flags_win_over_the_environment_over_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[limits]\nconnections = 1\njoins_in_flight = 1\nmessages_per_second = 1\n")

    loaded = load_with_origins(
        file,
        environ={"GATEWAY_LIMITS__CONNECTIONS": "2", "GATEWAY_LIMITS__JOINS_IN_FLIGHT": "2"},
        assignments=["limits.connections=3"],
    )

    limits = loaded.config.limits
    assert limits.connections == 3
    assert limits.joins_in_flight == 2
    assert limits.messages_per_second == 1
    assert limits.max_message_bytes == 65_536
    assert [
        loaded.origins[f"limits.{key}"]
        for key in ("connections", "joins_in_flight", "messages_per_second", "max_message_bytes")
    ] == ["--set", "GATEWAY_LIMITS__JOINS_IN_FLIGHT", str(file), "default"]


def test_the_environment_may_name_the_file_and_the_flag_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text('[bus]\nprefix = "first"\n')
    second.write_text('[bus]\nprefix = "second"\n')

    assert load_config(environ={"GATEWAY_CONFIG": str(first)}).bus.prefix == "first"
    assert load_config(second, environ={"GATEWAY_CONFIG": str(first)}).bus.prefix == "second"


def test_the_process_environment_is_read_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GATEWAY_BUS__PREFIX", "mine")

    assert load_config().bus.prefix == "mine"


CHANNELS = [{"pattern": "room:*", "push": "broadcast"}, {"pattern": "lobby", "echo": False}]
KEYS = [{"name": "a", "key": SECRET, "scopes": ["publish"]}]


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("GATEWAY_SERVER__PUBLIC", "[::1]:0", "server.public", "[::1]:0"),
        ("GATEWAY_SERVER__REUSE_PORT", "true", "server.reuse_port", True),
        ("GATEWAY_SERVER__REPLICA", "7", "server.replica", "7"),
        ("GATEWAY_DRAIN__DELAY_SECONDS", "0.5", "drain.delay_seconds", 0.5),
        ("GATEWAY_AUTH__SECRETS", json.dumps([SECRET]), "auth.secrets", (SECRET,)),
        ("GATEWAY_SERVER__ALLOWED_ORIGINS", '["*"]', "server.allowed_origins", ("*",)),
        ("GATEWAY_LOG__LEVEL", "debug", "log.level", "debug"),
    ],
)
def test_variables_hold_plain_strings_and_json(
    name: str, text: str, path: str, value: object
) -> None:
    config: object = load_config(environ={name: text})

    for part in path.split("."):
        config = getattr(config, part)
    assert config == value


def test_lists_of_tables_come_as_json() -> None:
    config = load_config(
        environ={
            "GATEWAY_CHANNELS": json.dumps(CHANNELS),
            "GATEWAY_API__KEYS": json.dumps(KEYS),
        }
    )

    assert [(c.pattern, c.join, c.push, c.echo) for c in config.channels] == [
        ("room:*", "authenticated", "broadcast", True),
        ("lobby", "authenticated", "deny", False),
    ]
    assert [(key.name, key.key, key.scopes) for key in config.api.keys] == [
        ("a", SECRET, ("publish",))
    ]


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_PORT",
        "GATEWAY_PORT_4000_TCP_ADDR",
        "GATEWAY_SERVICE_HOST",
        "GATEWAY_LOG_LEVEL",
        "X__Y",
    ],
)
def test_other_variables_are_not_read(name: str) -> None:
    assert load_config(environ={name: "tcp://10.0.0.1:4000"}) == Config()


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("GATEWAY_AUTH__SECRETS_FILE", f"{SECRET}\n", ("auth", "secrets"), (SECRET,)),
        ("GATEWAY_AUTH__SECRETS_FILE", f"a b\n{SECRET}\n", ("auth", "secrets"), ("a b", SECRET)),
        (
            "GATEWAY_AUTH__SECRETS_FILE",
            json.dumps([SECRET, "x"]),
            ("auth", "secrets"),
            (SECRET, "x"),
        ),
        ("GATEWAY_BUS__URL_FILE", "nats://u:p@h:4222\n", ("bus", "url"), "nats://u:p@h:4222"),
    ],
)
def test_a_secret_may_come_from_a_file(
    tmp_path: Path, variable: str, text: str, path: tuple[str, str], value: object
) -> None:
    file = tmp_path / "secret"
    file.write_text(text)

    loaded = load_with_origins(environ={variable: str(file)})

    assert getattr(getattr(loaded.config, path[0]), path[1]) == value
    assert loaded.origins[".".join(path)] == variable


def test_keys_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(KEYS))

    config = load_config(environ={"GATEWAY_API__KEYS_FILE": str(file)})

    assert config.api.keys[0].key == SECRET


def test_the_key_that_ends_in_file_is_no_file_of_a_secret() -> None:
    config = load_config(
        environ={"GATEWAY_BUS__URL": "nats://h", "GATEWAY_BUS__CREDENTIALS_FILE": "/x.creds"}
    )

    assert config.bus.credentials_file == "/x.creds"


def test_a_secret_written_twice_is_refused_without_showing_it(tmp_path: Path) -> None:
    text = problems(
        environ={"GATEWAY_AUTH__SECRETS": f'["{SECRET}"]', "GATEWAY_AUTH__SECRETS_FILE": SECRET},
        path=tmp_path,
    )

    assert (
        text == "GATEWAY_AUTH__SECRETS_FILE: GATEWAY_AUTH__SECRETS is set as well; set one of them"
    )


def test_a_secret_in_place_of_a_file_name_is_not_shown(tmp_path: Path) -> None:
    text = problems(environ={"GATEWAY_AUTH__SECRETS_FILE": SECRET}, path=tmp_path)

    assert text == "GATEWAY_AUTH__SECRETS_FILE: the file it names cannot be read"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[server]\npublics = 1", "server.publics: unknown key; did you mean server.public?"),
        ("[serve]\npublic = 1", "serve: unknown section; did you mean server?"),
        (
            "[server]\nconnections = 1",
            "server.connections: unknown key; did you mean limits.connections?",
        ),
        ("connections = 1", "connections: unknown key; did you mean limits.connections?"),
        ("[log]\nzzz = 1", "log.zzz: unknown key; known: level, format"),
        ("[channel]\npattern = 'a'", "channel: unknown section; did you mean channels?"),
        (
            "[[channels]]\npattern = 'a'\necko = true",
            "channels[0].ecko: unknown key; did you mean echo?",
        ),
        (
            "[[api.keys]]\nname = 'a'\nkey = 'b'\nscopes = ['read']\nscope = 1",
            "api.keys[0].scope: unknown key; did you mean scopes?",
        ),
        ("server = 3", "server: must be a table, [server]"),
        ("dev = true", "dev: cannot be configured; give the flag --dev"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert problems(text, path=tmp_path) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "GATEWAY_LOG__LEVELS",
            "GATEWAY_LOG__LEVELS: unknown key; did you mean GATEWAY_LOG__LEVEL?",
        ),
        (
            "GATEWAY_AUTH__SECRET_FILE",
            "GATEWAY_AUTH__SECRET_FILE: unknown key; did you mean GATEWAY_AUTH__SECRETS_FILE?",
        ),
        (
            "GATEWAY_LOG__LEVEL_FILE",
            "GATEWAY_LOG__LEVEL_FILE: unknown key; did you mean GATEWAY_LOG__LEVEL?",
        ),
        ("GATEWAY_X__Y__Z", "GATEWAY_X__Y__Z: unknown key"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest(
    tmp_path: Path, name: str, expected: str
) -> None:
    assert problems(environ={name: SECRET}, path=tmp_path) == expected


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("log.levels=info", "log.levels: unknown key; did you mean log.level?"),
        ("auth.secrets", "--set: must be section.key=value"),
        (SECRET, "--set: must be section.key=value"),
        (
            f"auth.secrets={SECRET}",
            "auth.secrets: is not JSON; allowed: a list of strings as JSON (from --set)",
        ),
        (
            "limits.connections=many",
            (
                'limits.connections: "many" is not allowed;'
                " allowed: a whole number from 0 to 1,000,000,000 (from --set)"
            ),
        ),
    ],
)
def test_a_wrong_flag_is_refused(tmp_path: Path, assignment: str, expected: str) -> None:
    assert problems("", {}, assignment, path=tmp_path) == expected


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = problems(
        '[log]\nlevel = "loud"\n[limits]\nconnections = -1\noutbound_total_bytes = 5\n[x]\n',
        {"GATEWAY_SERVER__PUBLIC": "4000", "GATEWAY_CHANNELS": "room"},
        "a=b",
        path=tmp_path,
    )

    keys = [line.partition(":")[0] for line in text.splitlines()]
    assert sorted(keys) == [
        "a",
        "channels",
        "limits.connections",
        "limits.outbound_total_bytes",
        "log.level",
        "server.public",
        "x",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[server", "is not TOML"),
        (b"[auth]\nsecrets = " + b"[" * 3000, "is nested too deeply"),
        (b"a = '\xff'", "is not UTF-8"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "gateway.toml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ConfigError, match=expected) as caught:
        load_config(file, environ={})

    assert str(file) in caught.value.problems[0]


def test_a_replica_without_a_name_gets_a_new_one_each_time() -> None:
    first, second = resolve_replica(Config()), resolve_replica(Config())

    assert first.server.replica
    assert first.server.replica != second.server.replica


def test_a_replica_keeps_its_configured_name() -> None:
    config = load_config(environ={"GATEWAY_SERVER__REPLICA": "blue"})

    assert resolve_replica(config) is config
