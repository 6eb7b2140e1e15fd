"""The client's address, of which a client can make nobody believe another."""

import pytest

from gateway.transport.peer import PeerAddress

PROXIES = ["10.0.0.0/8", "fd00::/8"]


@pytest.mark.parametrize(
    ("remote", "headers", "expected"),
    [
        ("198.51.100.7", [], "198.51.100.7"),
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["10.0.0.3"], "10.0.0.3"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["garbage"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9, garbage, 10.0.0.2"], "10.0.0.2"),
        ("fd00::1", ["2001:db8::9"], "2001:db8::9"),
        (None, ["203.0.113.9"], ""),
    ],
)
def test_addresses(remote: str | None, headers: list[str], expected: str) -> None:
    assert PeerAddress(PROXIES).resolve(remote, headers) == expected


def test_nobody_is_believed_by_default() -> None:
    assert PeerAddress([]).resolve("10.0.0.1", ["203.0.113.9"]) == "10.0.0.1"
