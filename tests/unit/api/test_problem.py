"""Every error under the API is a problem document, and the docs list all kinds."""

import re
from pathlib import Path

import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.api.problem import problems
from tests.unit.api.fakes import KINDS, Gateway

DOCS = Path(__file__).parents[3] / "docs" / "api.md"


async def test_unknown_path_is_404(gateway: Gateway) -> None:
    answer = await gateway.post("/nothing", b"")

    assert (answer.status, answer.slug) == (404, "not-found")


async def test_wrong_method_is_405_and_names_the_right_ones(gateway: Gateway) -> None:
    answer = await gateway.post("/livez", b"")

    assert (answer.status, answer.slug) == (405, "method-not-allowed")
    assert answer.headers["Allow"] == "GET,HEAD"


@pytest.mark.parametrize(
    ("wanted", "status"), [("100-continue", 202), ("100-Continue", 202), ("200-ok", 417)]
)
async def test_expectations_are_met_or_refused(gateway: Gateway, wanted: str, status: int) -> None:
    body = b'{"topic": "room:1", "event": "e", "payload": {}}'
    answer = await gateway.post("/v1/publish", body, Expect=wanted)

    assert answer.status == status
    assert ("problem" in answer.headers["Content-Type"]) is (status == 417)


@pytest.mark.parametrize(("wanted", "status"), [("100-continue", None), ("200-ok", 417)])
@pytest.mark.parametrize(("path", "usual"), [("/nothing", 404), ("/", 404), ("/livez", 405)])
async def test_an_expectation_of_what_is_not_there_is_answered_with_a_problem(
    gateway: Gateway, path: str, usual: int, wanted: str, status: int | None
) -> None:
    answer = await gateway.post(path, b"{}", Expect=wanted)

    assert (answer.status, answer.json["status"]) == (status or usual, status or usual)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert ("Allow" in answer.headers) is (answer.status == 405)


async def test_bug_is_500_without_detail(gateway: Gateway) -> None:
    gateway.relay.failure = KeyError("secret-payload")

    with structlog.testing.capture_logs() as logs:
        answer = await gateway.post(
            "/v1/publish", b'{"topic": "room:1", "event": "e", "payload": {"a": "secret-payload"}}'
        )

    assert (answer.status, answer.slug) == (500, "internal")
    assert "detail" not in answer.json
    assert [(entry["log_level"], entry["error"]) for entry in logs] == [
        ("error", "KeyError"),
        ("debug", "KeyError"),
    ]
    assert logs[0]["route"] == "/v1/publish"
    assert "secret-payload" not in str(logs)
    assert "publish-key" not in str(logs)
    assert gateway.publish_requests() == {"500": 1}


async def test_errors_of_http_itself_keep_their_status() -> None:
    async def gone(_: web.Request) -> web.Response:
        raise web.HTTPGone

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("/new")

    app = web.Application(middlewares=[problems(max_body_bytes=1)])
    app.router.add_get("/gone", gone)
    app.router.add_get("/old", elsewhere)
    async with TestClient(TestServer(app)) as client:
        lost = await client.get("/gone")
        old = await client.get("/old", allow_redirects=False)

        assert lost.content_type == "application/problem+json"
        assert await lost.json(content_type=None) == {
            "type": "about:blank",
            "title": "Gone",
            "status": 410,
        }
        assert (old.status, old.headers["Location"]) == (302, "/new")


def test_slugs_are_unique() -> None:
    assert len({kind.slug for kind in KINDS}) == len(KINDS)


def test_docs_list_every_kind_with_its_status() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", DOCS.read_text("utf-8"), re.MULTILINE)

    assert rows == [(kind.slug, str(kind.status)) for kind in KINDS]
