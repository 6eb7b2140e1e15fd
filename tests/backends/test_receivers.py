"""The receiving code of docs/backends.md, cut out of the page and run as it stands there."""

import base64
import hashlib
import hmac
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.clients.npm import install
from tests.support.ports import free_port, wait_until_listening
from tests.support.webhooks import (
    OTHER_SECRET,
    SECRET,
    TOLERANCE_SECONDS,
    Callback,
    join,
    push,
)

DOCUMENT = (Path(__file__).parents[2] / "docs/backends.md").read_text()
NODE = Path(__file__).parent / "node"

DJANGO = """
import sys
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    MIDDLEWARE=[
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
    ],
    ROOT_URLCONF="receiver",
    SECRET_KEY="of a test",
)
make_server("127.0.0.1", int(sys.argv[1]), get_wsgi_application()).serve_forever()
"""
FLASK = """
import sys
from wsgiref.simple_server import make_server

from receiver import app

make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
"""
FASTAPI = """
import sys

import uvicorn

uvicorn.run("receiver:app", host="127.0.0.1", port=int(sys.argv[1]))
"""
SERVERS = {"Django": DJANGO, "FastAPI": FASTAPI, "Flask": FLASK}

Ask = Callable[[Callback], Any]


def snippet(heading: str) -> str:
    """The code below a heading."""
    section = DOCUMENT.split(f"\n### {heading}\n")[1]
    found = re.search(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, heading
    return found[1]


def python_command(framework: str, directory: Path, port: int) -> list[str]:
    """What serves a Python snippet."""
    (directory / "receiver.py").write_text(snippet(framework))
    (directory / "serve.py").write_text(SERVERS[framework])
    return [sys.executable, "serve.py", str(port)]


def node_command(node: str, directory: Path) -> list[str]:
    """What serves the Express snippet; the port is in the environment."""
    (directory / "node_modules").symlink_to(install(NODE))
    (directory / "receiver.mjs").write_text(snippet("Express"))
    return [node, "receiver.mjs"]


@pytest.fixture(scope="module", params=["Django", "FastAPI", "Flask", "Express"])
def receiver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a running receiver."""
    directory, port = tmp_path_factory.mktemp("receiver"), free_port()
    if request.param == "Express":
        command = node_command(request.getfixturevalue("node"), directory)
    else:
        command = python_command(request.param, directory, port)
    environment = os.environ | {"WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log)
    try:
        wait_until_listening(process, port, directory / "log")
        yield f"http://127.0.0.1:{port}/gateway"
    finally:
        process.terminate()
        process.wait()


async def ask(url: str, callback: Callback) -> tuple[int, Any]:
    """Status and decoded body, None for an empty one."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, data=callback.body, headers=callback.headers) as response,
    ):
        text = await response.text()
        assert not text or response.content_type == "application/json"
        return response.status, await response.json() if text else None


async def test_a_member_may_join(receiver: str) -> None:
    status, answer = await ask(receiver, Callback(join("ada")))

    assert status == 200
    assert answer == {"response": {"name": "Ada"}, "state": {"name": "Ada"}}


@pytest.mark.parametrize("user", ["eve", None, "constructor"])
async def test_nobody_else_may(receiver: str, user: str | None) -> None:
    assert await ask(receiver, Callback(join(user))) == (403, {"reason": "not a member"})


@pytest.mark.parametrize("topic", ["room:random", "constructor"])
async def test_a_member_of_one_room_may_not_join_another(receiver: str, topic: str) -> None:
    assert await ask(receiver, Callback(join("ada", topic))) == (403, {"reason": "not a member"})


async def test_a_push_is_answered_with_a_broadcast(receiver: str) -> None:
    """Its text, what the join left in the state, and an id that stays the same when it comes twice."""
    call = push("ada", {"text": "grüß Gott 🙂"}, state={"name": "Ada"})
    post = {"id": "msg_7", "name": "Ada", "text": "grüß Gott 🙂"}
    expected = {
        "response": {"id": "msg_7"},
        "broadcast": [{"event": "message", "payload": post}],
    }
    for _ in range(2):
        assert await ask(receiver, Callback(call, webhook_id="msg_7")) == (200, expected)


@pytest.mark.parametrize(
    "call",
    [
        push("ada", {"text": "hi"}, event="shout", state={"name": "Ada"}),
        push("ada", {"text": 7}, state={"name": "Ada"}),
        push("ada", {}, state={"name": "Ada"}),
    ],
    ids=["event", "text", "payload"],
)
async def test_a_push_it_does_not_know_is_refused(receiver: str, call: dict[str, Any]) -> None:
    assert await ask(receiver, Callback(call)) == (422, {"reason": "not understood"})


async def test_what_only_tells_is_taken(receiver: str) -> None:
    call = {"type": "gateway.user.online", "user": "ada"}

    assert await ask(receiver, Callback(call)) == (204, None)


async def test_one_good_signature_of_several_is_enough(receiver: str) -> None:
    """While secrets are rotated there is one of each."""
    for secrets in ((OTHER_SECRET, SECRET), (SECRET, OTHER_SECRET)):
        assert (await ask(receiver, Callback(join("ada"), secrets=secrets)))[0] == 200


def changed_body() -> Callback:
    """Eve says she is Ada."""
    callback = Callback(join("eve"))
    callback.body = callback.body.replace(b'"eve"', b'"ada"')
    return callback


def changed_header(name: str, value: str | None) -> Callback:
    """A good one but for a header."""
    callback = Callback(join("ada"))
    callback.headers = {key: text for key, text in callback.headers.items() if key != name}
    if value is not None:
        callback.headers[name] = value
    return callback


FORGED = {
    "another body": changed_body,
    "another id": lambda: changed_header("webhook-id", "msg_2"),
    "another time": lambda: changed_header("webhook-timestamp", str(int(time.time()) - 60)),
    "another secret": lambda: Callback(join("ada"), secrets=[OTHER_SECRET]),
    "too old": lambda: Callback(join("ada"), age_seconds=TOLERANCE_SECONDS + 60),
    "too new": lambda: Callback(join("ada"), age_seconds=-TOLERANCE_SECONDS - 60),
    "no signature": lambda: changed_header("webhook-signature", None),
    "no id": lambda: changed_header("webhook-id", None),
    "no time": lambda: changed_header("webhook-timestamp", None),
    "no number as time": lambda: changed_header("webhook-timestamp", "today"),
    "half a signature": lambda: changed_header("webhook-signature", "v1"),
    "an empty signature": lambda: changed_header("webhook-signature", "v1,"),
    "no base64": lambda: changed_header("webhook-signature", "v1,!"),
    "no signature of version 1": lambda: changed_header(
        "webhook-signature", Callback(join("ada")).headers["webhook-signature"].replace("v1", "v2")
    ),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_a_forged_request_is_refused(receiver: str, forge: Callable[[], Callback]) -> None:
    assert await ask(receiver, forge()) == (401, {"reason": "bad signature"})


async def test_a_body_that_is_no_text_is_refused(receiver: str) -> None:
    callback = Callback(join("ada"))
    callback.body = b"\xff\xfe"

    assert (await ask(receiver, callback))[0] == 401


async def test_the_headers_of_cloudevents_are_not_believed(receiver: str) -> None:
    """They are not signed; whoever can change them must gain nothing."""
    callback = Callback(join("eve"))
    callback.headers["ce-subject"] = "ada"
    callback.headers["ce-type"] = "gateway.user.online"

    assert (await ask(receiver, callback))[0] == 403


def test_the_example_to_try_ones_code_with_is_right() -> None:
    example = dict(re.findall(r"^(secret|webhook-[a-z]+|body) {2,}(\S+)$", DOCUMENT, re.MULTILINE))
    key = base64.b64decode(example["secret"].removeprefix("whsec_"), validate=True)
    signed = f"{example['webhook-id']}.{example['webhook-timestamp']}.{example['body']}"
    signature = base64.b64encode(hmac.digest(key, signed.encode(), hashlib.sha256)).decode()

    assert example["webhook-signature"] == f"v1,{signature}"


def test_each_language_of_the_list_has_its_code() -> None:
    listed = re.findall(r"\[(\w+)\]\(#(\w+)\)", DOCUMENT.split("```")[0])
    headings = re.findall(r"^### (\w+)$", DOCUMENT, re.MULTILINE)

    assert [name for name, _ in listed] == headings
    assert [anchor for _, anchor in listed] == [name.lower() for name in headings]
    for name in headings:
        assert "gateway.join" in snippet(name)
        assert "gateway.push" in snippet(name)
