from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from gateway.bus import open_bus, servers
from gateway.bus.memory import MemoryBus
from gateway.bus.servers import Servers
from gateway.errors import ConfigError
from gateway.metrics import Metrics
from tests.contract.clients import Section


def test_addresses_carry_no_user_information() -> None:
    found = Servers(Section("nats://me:s%3Acret@a:4222, nats://b:4223"))
    assert found.urls == ("nats://a:4222", "nats://b:4223")
    assert found.login() == {"user": "me", "password": "s:cret"}


def test_a_lone_user_is_a_token() -> None:
    assert Servers(Section("tls://t0ken@a")).login() == {"token": "t0ken"}


def test_no_user_is_no_login() -> None:
    assert Servers(Section("nats://[::1]:4222")).login() == {}


def test_advertised_servers_come_after_the_configured_ones_and_once() -> None:
    found = Servers(Section("tls://a:4222,tls://b:4222"))
    assert found.with_advertised(["c:4222", "a:4222"]) == [
        "tls://a:4222",
        "tls://b:4222",
        "tls://c:4222",
    ]


def test_an_address_without_a_port_is_the_one_with_the_usual_port() -> None:
    found = Servers(Section("nats://a,nats://[::1]"))
    assert found.with_advertised(["a:4222", "[::1]:4222"]) == ["nats://a:4222", "nats://[::1]:4222"]


def test_who_failed_is_tried_last_and_who_failed_just_now_behind_all() -> None:
    found = Servers(Section("nats://a,nats://b,nats://c"))
    found.failed("a:4222")
    found.failed("d:4222")
    for _ in range(20):
        first, second, *others = found.in_turn(["d:4222", "e:4222"])
        assert {first, second} == {"nats://b:4222", "nats://c:4222"}
        assert others == ["nats://e:4222", "nats://a:4222", "nats://d:4222"]
    found.failed("a:4222")
    assert found.in_turn(["d:4222"])[-2:] == ["nats://d:4222", "nats://a:4222"]


def test_replicas_go_to_different_servers() -> None:
    found = Servers(Section("nats://a,nats://b,nats://c"))
    found.failed("")  # none was reached, which says nothing of any
    assert {found.in_turn([])[0] for _ in range(200)} == set(found.urls)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:4222",
        "http://a",
        "nats://",
        "nats://a:port",
        "nats://a,",
        "memory://,nats://a",
        "nats://to/ken@a:4222",
        "nats://me:pass?word@a",
        "nats://me:pass#word@a",
        "nats://a:4222/b",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"bus\.url"):
        Servers(Section(url))


def test_a_refused_address_is_not_quoted() -> None:
    with pytest.raises(ConfigError) as caught:
        Servers(Section("http://me:secret@a"))
    assert "secret" not in str(caught.value)


def test_a_file_that_holds_no_credentials_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py would search its end for ever."""
    monkeypatch.setattr(servers, "find_spec", lambda name: ModuleSpec(name, None))
    path = tmp_path / "user.creds"
    with pytest.raises(ConfigError, match="cannot be read"):
        Servers(Section("nats://a", credentials_file=str(path)))
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="is no NATS credentials file"):
        Servers(Section("nats://a", credentials_file=str(path)))
    path.write_text("-----BEGIN NATS USER JWT-----\n-----BEGIN USER NKEY SEED-----\n")
    assert Servers(Section("nats://a", credentials_file=str(path))).login() == {
        "user_credentials": str(path)
    }


def test_credentials_need_a_package_that_may_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="nkeys"):
        Servers(Section("nats://a", credentials_file=str(tmp_path)))


def test_the_memory_bus_needs_no_server() -> None:
    assert isinstance(open_bus(Section("memory://"), metrics=Metrics(), name="r"), MemoryBus)
