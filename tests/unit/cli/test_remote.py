"""Commands that talk to a running gateway, where none is; and what they print of one."""

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from gateway.cli import sessions
from gateway.cli.watch import WatchView
from tests.support.certificate import write_certificate
from tests.support.ports import free_port

Invoke = Callable[..., Result]

MESSAGE = (
    b'{"type":"message","topic":"room:42","event":"e","payload":{"n": 1.0},"position":"@e.%d.1"}'
)
PRINTED = '{"topic":"room:42","event":"e","payload":{"n": 1.0},"position":"@e.7.1"}\n'


@pytest.mark.parametrize(
    "command",
    [("publish", "room:42", "message", "{}"), ("watch", "room:42"), ("sessions", "42"), ("top",)],
    ids=lambda c: c[0],
)
def test_a_gateway_that_is_away_is_a_failure(invoke: Invoke, command: tuple[str, ...]) -> None:
    port = free_port()

    result = invoke(*command, "--dev", "--url", f"http://127.0.0.1:{port}")

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
        (("watch", "a", "--dev", "--url", "://"), "must be like http://host:4001"),
        (("watch", "a"), "none has the scope read"),
        (("watch", "a", "--dev", "--count", "0"), "--count"),
    ],
)
def test_misuse_is_told(invoke: Invoke, command: tuple[str, ...], words: str) -> None:
    result = invoke(*command)

    assert result.exit_code == 2
    assert words in result.stderr


@pytest.fixture
def somebody() -> Iterator[HTTPServer]:
    """A server that is no gateway: ``asked`` has what it was, ``status``, ``media``, ``body`` its answer."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server: Any = self.server
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            server.asked.append((self.path, self.headers["Authorization"]))
            self.send_response(server.status)
            self.send_header("Content-Type", server.media)
            self.end_headers()
            self.wfile.write(server.body)

        do_GET = do_POST  # noqa: N815 -- the name it is called by

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server: Any = HTTPServer(("127.0.0.1", 0), Answer)
    server.asked, server.status, server.media, server.body = [], 200, "text/html", b"<p>Welcome"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    "command", [("publish", "a", "b", "{}"), ("watch", "a"), ("sessions", "a")]
)
@pytest.mark.parametrize(
    ("status", "media"), [(200, "text/html"), (200, "text/plain"), (404, "text/plain")]
)
def test_who_is_no_gateway_is_not_believed(
    invoke: Invoke, somebody: Any, command: tuple[str, ...], status: int, media: str
) -> None:
    somebody.status, somebody.media = status, media

    result = invoke(*command, "--key", "k", "--url", f"http://127.0.0.1:{somebody.server_port}")

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"HTTP {status}, and no answer of a gateway" in result.stderr


def test_a_certificate_that_is_not_trusted_is_told(
    invoke: Invoke, somebody: Any, tmp_path: Path
) -> None:
    certificate, key = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    somebody.socket = context.wrap_socket(somebody.socket, server_side=True)
    somebody.handle_error = lambda *_: None  # what it says on standard error is no news
    there = f"https://127.0.0.1:{somebody.server_port}"

    result = invoke("publish", "a", "b", "{}", "--key", "k", "--url", there)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {there}/v1/publish: ")
    assert "certificate verify failed" in result.stderr


def test_an_url_and_the_key_of_the_environment_are_all_it_takes(
    invoke: Invoke, somebody: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The URL may have a path; a key on the command line counts more."""
    monkeypatch.setenv("GATEWAY_API_KEY", "from the environment")
    somebody.media, somebody.body = "application/json", b"{}"
    there = ("--url", f"http://127.0.0.1:{somebody.server_port}/behind/")

    assert invoke("publish", "a", "b", "{}", *there).exit_code == 0
    assert invoke("publish", "a", "b", "{}", *there, "--key", "typed").exit_code == 0
    somebody.media = "application/x-ndjson"
    somebody.body = b'{"type":"message","topic":"a/b"}\n'
    assert invoke("watch", "a/b", "--count", "1", *there).stdout == '{"topic":"a/b"}\n'
    assert somebody.asked == [
        ("/behind/v1/publish", "Bearer from the environment"),
        ("/behind/v1/publish", "Bearer typed"),
        ("/behind/v1/tail?topic=a/b", "Bearer from the environment"),
    ]


@pytest.mark.parametrize(("topic", "notes"), [("room:*", 1), ("room:42", 0)])
def test_a_pattern_is_said_to_show_topics_with_members_only(
    invoke: Invoke, topic: str, notes: int
) -> None:
    result = invoke("watch", topic, "--dev", "--url", f"http://127.0.0.1:{free_port()}")

    assert result.stderr.count("note: a pattern shows only topics that have members") == notes


@pytest.mark.parametrize(
    ("missing", "warnings"),
    [("", ""), ('"b"', "warning: the list is not complete: no answer from b\n")],
)
def test_a_user_without_sessions_is_said_to_have_none(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch, missing: str, warnings: str
) -> None:
    complete = "false" if missing else "true"
    answer = f'{{"items": [], "complete": {complete}, "missing_replicas": [{missing}]}}'
    monkeypatch.setattr(sessions, "call", lambda *_, **__: answer)

    result = invoke("sessions", "42")

    assert (result.exit_code, result.stderr) == (0, warnings)
    assert result.stdout == "user 42 has no sessions\n"


def test_a_message_is_printed_as_it_was_published_and_its_position_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    view = WatchView(2)
    view.read(b'{"type":"start","position":"@e.6.1","recovered":null,"reason":null}')
    assert (view.started, view.position) == (True, "@e.6.1")
    view.read(MESSAGE % 7)
    view.read(b'{"type":"heartbeat"}')
    view.read(b'{"type":"of a later release","position":"@e.7.2"}')

    assert capsys.readouterr() == (PRINTED, "")
    assert (view.position, view.done) == ("@e.7.2", False)
    view.read(MESSAGE % 8)
    assert view.done


def test_what_is_missing_is_said_beside_the_messages(capsys: pytest.CaptureFixture[str]) -> None:
    view = WatchView(None)
    for gap in (b'12,"reason":"slow"', b'null,"reason":"history"', b'null,"reason":"bus"'):
        view.read(b'{"type":"gap","messages":%b}' % gap)

    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[1:] for line in err.splitlines()] == [
        [" 12 messages are missing here", " this reader was too slow for them"],
        [" messages may be missing here", " the history lost messages before they could be read"],
        [
            " messages may be missing here",
            " the bus was away, and nothing is kept of what was published meanwhile",
        ],
    ]


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b'"recovered":true,"reason":null', "note: connected again, and nothing was missed\n"),
        (
            b'"recovered":false,"reason":"expired"',
            (
                "warning: connected again; messages may be missing here:"
                " it was away for longer than messages are kept\n"
            ),
        ),
        (
            b'"recovered":null,"reason":"no_history"',
            "warning: connected again; nothing is kept of what came meanwhile\n",
        ),
    ],
)
def test_coming_back_says_whether_anything_was_missed(
    capsys: pytest.CaptureFixture[str], start: bytes, words: str
) -> None:
    view = WatchView(None)
    view.read(b'{"type":"start","recovered":null,"reason":null}')
    view.read(b'{"type":"end","reason":"drained"}')
    view.away("not twice")
    ended = "warning: the replica has moved its clients away; connecting again\n"
    assert capsys.readouterr().err == ended

    view.read(b'{"type":"start",%b}' % start)
    assert capsys.readouterr().err == words
    view.away("the next time")
    assert "the next time" in capsys.readouterr().err
