"""Commands that talk to a running gateway, where none is: publish and watch."""

from collections.abc import Callable

import pytest
from typer.testing import Result

from gateway.cli.options import Failure
from gateway.cli.watch import _read_binary, _read_text
from tests.support.ports import free_port

Invoke = Callable[..., Result]


@pytest.mark.parametrize(
    "command", [("publish", "room:42", "message", "{}"), ("watch", "room:42")], ids=lambda c: c[0]
)
def test_a_gateway_that_is_away_is_a_failure(invoke: Invoke, command: tuple[str, ...]) -> None:
    port = free_port()

    result = invoke(
        *command,
        "--dev",
        "--url",
        f"{'ws' if command[0] == 'watch' else 'http'}://127.0.0.1:{port}",
    )

    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("publish", "a", "b", "[1]", "--dev"), "must be a JSON object"),
        (("publish", "a", "b", "{", "--dev"), "must be a JSON object"),
        (("publish", "a", "b", "{}"), "none has the scope publish"),
        (("publish", "a", "b", "{}", "--dev", "--url", "://"), "must be like http://host:4001"),
        (("watch", "a"), "auth.secrets: is empty"),
        (("watch", "a", "--dev", "--count", "0"), "--count"),
    ],
)
def test_misuse_is_told(invoke: Invoke, command: tuple[str, ...], words: str) -> None:
    result = invoke(*command)

    assert result.exit_code == 2
    assert words in result.stderr


def test_a_binary_message_is_printed_in_base64() -> None:
    frame = b"\x02\x07\x05room:42image\x00\xff"

    assert _read_binary(frame) == b'{"topic":"room:42","event":"image","base64":"AP8="}'


@pytest.mark.parametrize("event", ["phx_close", "phx_error"])
def test_a_channel_that_ends_ends_the_watch(event: str) -> None:
    with pytest.raises(Failure, match="was closed"):
        _read_text(f'["1","1","room:42","{event}",{{}}]', "room:42")
