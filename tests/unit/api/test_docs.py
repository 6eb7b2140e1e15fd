"""The page that describes the API needs nothing but itself."""

import re
from html.parser import HTMLParser

from gateway.api.docs import page
from gateway.api.frames import RECEIVED, SENT
from gateway.api.openapi import document
from gateway.protocol.reasons import CloseCode, Reason
from tests.unit.api.fakes import Gateway


class Page(HTMLParser):
    """Tags, links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "br"}:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.anchors.append(value or "")
            elif name == "href" and tag == "a":
                self.links.append(value or "")
            elif name in {"src", "href", "srcset", "action"}:
                self.loaded.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


async def test_page_is_served_under_a_policy_that_lets_nothing_be_loaded(gateway: Gateway) -> None:
    response = await gateway.client.get("/docs")

    assert response.content_type == "text/html"
    assert response.charset == "utf-8"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert await response.text() == page()


def test_page_loads_nothing() -> None:
    found = Page(page())

    assert found.open == []
    assert found.loaded == ["data:,"]
    assert "@import" not in page()
    assert "url(" not in page()
    assert not re.search(r"https?://", page())


def test_links_within_the_page_lead_somewhere() -> None:
    found = Page(page())

    assert len(found.anchors) == len(set(found.anchors))
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.anchors)


def test_page_shows_every_operation_and_schema_with_a_curl() -> None:
    found = Page(page())
    operations = [
        operation["operationId"]
        for methods in document()["paths"].values()
        for operation in methods.values()
    ]

    assert set(operations) <= set(found.anchors)
    assert {f"schema-{name}" for name in document()["components"]["schemas"]} <= set(found.anchors)
    assert page().count("data-curl>curl ") == len(operations)


def test_page_shows_every_frame_reason_and_close_code() -> None:
    found = Page(page())

    assert {f"frame-{frame.name}" for frame in (*RECEIVED, *SENT)} <= set(found.anchors)
    assert all(f"<code>{each.value}</code>" in page() for each in (*Reason, *CloseCode))


def test_page_follows_the_light_and_the_dark_scheme() -> None:
    assert "color-scheme: light dark" in page()
    assert "prefers-color-scheme: dark" in page()
