"""Secrets in what is shown."""

import pytest

from gateway.config import load_config as load_with_origins
from gateway.config.keys import KEYS
from gateway.config.load import effective
from gateway.config.masking import masked, shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://", "memory://"),
        ("nats://host:4222", "nats://host:4222"),
        ("nats://u:p@host:4222", "nats://***@host:4222"),
        ("nats://token@host", "nats://***@host"),
        ("nats://u:p@a,tls://u:p@b", "nats://***@a,tls://***@b"),
        ("nats://u:p@ss@host", "nats://***@host"),
        ("nats://u:p,q@host", "nats://***@host"),
        ("nats://u:p/q?r#s@host", "nats://***@host"),
        ("u:p@host", "***@host"),
    ],
)
def test_user_information_is_masked_in_addresses(url: str, expected: str) -> None:
    assert masked(url, KEYS["bus.url"].shape) == expected


@pytest.mark.parametrize("path", ["upstream.url", "auth.jwks_url"])
@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ""),
        ("https://host/path?a=b", "https://host/path?a=b"),
        ("https://u:p@host:8443/path", "https://***@host:8443/path"),
        ("https://u:p@ss/w@host/path", "https://***@host/path"),
    ],
)
def test_user_information_is_masked_in_addresses_of_http(
    path: str, url: str, expected: str
) -> None:
    assert masked(url, KEYS[path].shape) == expected


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("auth.secrets", [], []),
        ("auth.secrets", ["a", "b"], ["***", "***"]),
        ("auth.secrets", "a", "***"),
        ("auth.secrets", {"a": "b"}, "***"),
        ("auth.secrets", ["a", ["b"]], ["***", "***"]),
        ("bus.url", ["nats://u:p@h"], "***"),
        ("auth.public_keys", ["/keys/a.pem", "-----BEGIN X-----"], ["/keys/a.pem", "***"]),
        ("auth.public_keys", "-----BEGIN PRIVATE KEY-----\nMC4=", "***"),
        ("auth.public_keys", [["-----BEGIN X-----"]], ["***"]),
        (
            "api.keys",
            [{"name": "n", "key": "k", "scopes": ["read"], "kye": "k"}],
            [{"name": "n", "key": "***", "scopes": ["read"], "kye": "***"}],
        ),
        ("api.keys", {"a": {"name": "n", "key": "k"}}, "***"),
        ("server.replica", "a", "a"),
    ],
)
def test_secrets_are_masked_whatever_their_shape(
    path: str, value: object, expected: object
) -> None:
    assert masked(value, KEYS[path].shape) == expected


def test_a_long_value_is_cut_in_messages() -> None:
    assert len(shown("x" * 1000, KEYS["server.replica"].shape)) < 100


def test_the_effective_configuration_shows_no_secret() -> None:
    loaded = load_with_origins(
        environ={
            "GATEWAY_BUS__URL": "nats://u:hunter2@h",
            "GATEWAY_AUTH__SECRETS": '["hunter2"]',
            "GATEWAY_API__KEYS": '[{"name": "a", "key": "hunter2", "scopes": ["read"]}]',
            "GATEWAY_AUTH__JWKS_URL": "https://u:hunter2@h/keys",
            "GATEWAY_UPSTREAM__URL": "https://u:hunter2@h/",
            "GATEWAY_CHANNELS": '[{"pattern": "a", "upstream_url": "https://u:hunter2@h/a"}]',
        }
    )

    shown = {path: (value, origin) for path, value, origin in effective(loaded)}

    assert list(shown) == list(KEYS)
    assert "hunter2" not in str(shown)
    assert shown["bus.url"] == ("nats://***@h", "GATEWAY_BUS__URL")
    assert shown["auth.jwks_url"][0] == "https://***@h/keys"
    assert shown["upstream.url"][0] == "https://***@h/"
    [channel] = shown["channels"][0]
    assert (channel["pattern"], channel["upstream_url"]) == ("a", "https://***@h/a")
    assert shown["auth.secrets"] == (["***"], "GATEWAY_AUTH__SECRETS")
    assert shown["api.keys"][0] == [{"name": "a", "key": "***", "scopes": ("read",)}]
