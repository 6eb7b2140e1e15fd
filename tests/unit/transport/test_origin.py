"""Which pages may connect."""

import pytest

from gateway.transport.origin import OriginPolicy

APP = "https://app.example.com"


@pytest.mark.parametrize(
    ("allowed", "origin", "host", "expected"),
    [
        ([], None, "gw.example.com", True),
        ([], "https://gw.example.com", "gw.example.com", True),
        ([], "https://gw.example.com", "gw.example.com:4000", True),
        ([], "http://localhost:3000", "localhost:4000", True),
        ([], "http://[::1]:3000", "[::1]:4000", True),
        ([], "https://evil.example", "gw.example.com", False),
        ([], "https://gw.example.com.evil.example", "gw.example.com", False),
        ([], "null", "gw.example.com", False),
        ([], "", "gw.example.com", False),
        ([], "https://", "gw.example.com", False),
        ([], "https://gw.example.com:port", "gw.example.com", True),
        (["*"], "https://evil.example", "h", True),
        (["*"], "null", "h", True),
        ([APP], APP, "h", True),
        ([APP], "https://APP.example.com", "h", True),
        ([APP], "https://app.example.com:443", "h", True),
        ([APP], "http://app.example.com", "h", False),
        ([APP], "https://app.example.com:8443", "h", False),
        ([APP], "https://other.example.com", "h", False),
        ([APP], None, "h", True),
        (["https://app.example.com:8443"], "https://app.example.com:8443", "h", True),
        (["https://app.example.com:8443"], APP, "h", False),
        (["//app.example.com"], "http://app.example.com:3000", "h", True),
        (["//app.example.com:88"], "http://app.example.com:88", "h", True),
        (["//app.example.com:88"], "http://app.example.com", "h", False),
        (["//*.example.com"], "https://a.example.com", "h", True),
        (["//*.example.com"], "https://a.b.example.com", "h", True),
        (["//*.example.com"], "https://example.com", "h", True),
        (["//*.example.com"], "https://badexample.com", "h", False),
        ([APP, "//localhost"], "http://localhost:3000", "h", True),
        ([APP], "https://app.example.com:99999", "h", False),
        ([APP], "https://[app", "h", False),
    ],
)
def test_origins(allowed: list[str], origin: str | None, host: str, expected: bool) -> None:
    assert OriginPolicy(allowed).allows(origin, host) is expected
