"""What --dev opens, and what it does not."""

from pathlib import Path

import pytest

from gateway.config import ChannelSettings, Config
from gateway.config import load_config as load_with_origins
from gateway.config.dev import SECRET
from gateway.errors import ConfigError
from gateway.retention import Retention
from tests.unit.config.loading import load_config


def dev(*assignments: str, **environ: str) -> Config:
    """A development configuration."""
    return load_config(environ=environ, assignments=assignments, dev=True)


def test_everything_is_open_on_this_machine_only() -> None:
    config = dev()

    assert config.dev
    assert config.server.public == "127.0.0.1:4000"
    assert config.server.internal == "127.0.0.1:4001"
    assert config.server.allowed_origins == ("*",)
    assert config.bus.url == "memory://"
    assert config.auth.allow_anonymous
    assert config.auth.secrets == (SECRET,)
    [rule] = config.channels
    assert (rule.pattern, rule.join, rule.push, rule.presence) == ("*", "anyone", "broadcast", True)
    assert rule.history == Retention(messages=100, seconds=300)
    [key] = config.api.keys
    assert (key.name, key.key, key.scopes) == ("dev", "dev", ("publish", "read", "manage"))
    assert config.drain.delay_seconds + config.drain.window_seconds == 0


def test_without_it_nothing_is_open() -> None:
    config = load_config(environ={})

    assert not config.dev
    assert not config.auth.allow_anonymous
    assert not config.channels
    assert not config.api.keys
    assert not config.auth.secrets


def test_what_was_configured_stays() -> None:
    config = dev(
        "server.public=[::1]:0",
        "bus.url=nats://127.0.0.1:4222",
        'auth.secrets=["mine"]',
        'channels=[{"pattern": "room:*"}]',
        'server.allowed_origins=["https://a"]',
        "drain.window_seconds=3",
    )

    assert config.server.public == "[::1]:0"
    assert config.bus.url == "nats://127.0.0.1:4222"
    assert config.auth.secrets == ("mine",)
    assert config.channels == (ChannelSettings(pattern="room:*"),)
    assert config.server.allowed_origins == ("https://a",)
    assert config.drain.window_seconds == 3


def test_anonymous_clients_are_let_in_whatever_file_and_environment_say(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("[auth]\nallow_anonymous = false\n")

    loaded = load_with_origins(file, environ={"GATEWAY_AUTH__ALLOW_ANONYMOUS": "false"}, dev=True)

    assert loaded.config.auth.allow_anonymous
    assert loaded.origins["auth.allow_anonymous"] == "--dev"


def test_a_flag_beside_it_wins() -> None:
    assert not dev("auth.allow_anonymous=false").auth.allow_anonymous


def test_the_key_dev_comes_to_the_others() -> None:
    config = dev(GATEWAY_API__KEYS='[{"name": "a", "key": "b", "scopes": ["read"]}]')

    assert [key.name for key in config.api.keys] == ["a", "dev"]


def test_a_key_called_dev_is_left_alone() -> None:
    config = dev(GATEWAY_API__KEYS='[{"name": "dev", "key": "b", "scopes": ["read"]}]')

    assert [key.key for key in config.api.keys] == ["b"]


@pytest.mark.parametrize("key", ["server.public", "server.internal"])
@pytest.mark.parametrize(
    "address", ["0.0.0.0:4005", "[::]:4005", "192.168.0.1:4005", "example.com:4005"]
)
def test_other_machines_cannot_be_let_in(key: str, address: str) -> None:
    with pytest.raises(ConfigError, match="loopback") as caught:
        dev(f"{key}={address}")

    assert caught.value.problems[0].startswith(f'{key}: "{address}"')


@pytest.mark.parametrize("address", ["localhost:4005", "127.0.0.9:4005", "[::1]:4005"])
def test_any_loopback_address_will_do(address: str) -> None:
    assert dev(f"server.public={address}").server.public == address


def test_what_is_no_list_of_keys_is_refused_all_the_same() -> None:
    with pytest.raises(ConfigError, match="a list of tables"):
        dev(GATEWAY_API__KEYS='{"key": "hunter2"}')
