"""What the request for a stream asks for, and what it is refused for."""

import pytest
from multidict import CIMultiDict, MultiDict

from gateway.protocol.sse import digest
from gateway.transport.handshake import Refused
from gateway.transport.sse.query import Wanted, wanted

A, B = (digest(topic).decode() for topic in ("a", "b"))
AT = "@e.1f.18f00000000"
LATER = "@e.2f.18f00000001"


def asked(query: str, last_id: str | None = None, most: int = 100) -> Wanted:
    """What becomes of a query."""
    pairs = [part.split("=", 1) for part in query.split("&") if part]
    headers = CIMultiDict({} if last_id is None else {"Last-Event-ID": last_id})
    return wanted(MultiDict([(name, value) for name, value in pairs]), headers, most)


@pytest.mark.parametrize(
    ("query", "last_id", "resumes", "lost"),
    [
        ("topic=a", None, {"a": b"null"}, False),
        ("topic=a", "", {"a": b"null"}, False),
        ("topic=a&topic=b&topic=a", None, {"a": b"null", "b": b"null"}, False),
        ("topic=a&resume=last:20", None, {"a": b'{"last":20}'}, False),
        (f"topic=a&resume={AT}", None, {"a": f'"{AT}"'.encode()}, False),
        (f"topic=a&resume={AT}", LATER, {"a": f'"{LATER}"'.encode()}, False),
        ("topic=a&resume=last:20", AT, {"a": f'"{AT}"'.encode()}, False),
        (
            "topic=b&topic=a",
            f"{A}{AT},{B}.2f.18f00000001",
            {"b": f'"{LATER}"'.encode(), "a": f'"{AT}"'.encode()},
            False,
        ),
        # a topic that was not joined yet
        (
            "topic=a&topic=b&resume=last:5",
            f"{A}{AT}",
            {"a": f'"{AT}"'.encode(), "b": b'{"last":5}'},
            False,
        ),
        # one of a stream with more topics
        ("topic=a", f"{B}{LATER},{A}.1f.18f00000000", {"a": f'"{AT}"'.encode()}, False),
        # nothing of ours
        ("topic=a", "made up", {"a": b"null"}, True),
        ("topic=a", "@e.1f", {"a": b"null"}, True),
        ("topic=a&resume=last:5", "@e.zz.1", {"a": b"null"}, True),
        ("topic=a&topic=b", AT, {"a": b"null", "b": b"null"}, True),
        ("topic=a&topic=b", f"{A}{AT},{B}@e.zz.1", {"a": b"null", "b": b"null"}, True),
        ("topic=c&topic=d", f"{A}{AT}", {"c": b"null", "d": b"null"}, True),
        ("topic=a", '@e.1.1"}', {"a": b"null"}, True),
    ],
)
def test_where_it_begins(
    query: str, last_id: str | None, resumes: dict[str, bytes], lost: bool
) -> None:
    found = asked(query, last_id)

    assert (dict(found.resumes), found.lost) == (resumes, lost)


def test_presence_is_asked_for() -> None:
    assert asked("topic=a&presence=true").presence
    assert not asked("topic=a&presence=false").presence
    assert not asked("topic=a").presence


@pytest.mark.parametrize(
    "query",
    [
        "",
        "topic=a&topic=b&topic=c",
        "topic=" + "x" * 256,
        "topic=\udcff",
        "topic=a&presence=yes",
        "topic=a&resume=last:0",
        "topic=a&resume=last:",
        "topic=a&resume=last:-1",
        "topic=a&resume=last:\N{SUPERSCRIPT TWO}",
        "topic=a&resume=last:9999999999",
        "topic=a&resume=20",
        f"topic=a&topic=b&resume={AT}",
    ],
)
def test_a_query_that_is_none_is_refused_with_advice(query: str) -> None:
    with pytest.raises(Refused) as refused:
        asked(query, most=2)

    assert (refused.value.status, refused.value.reason) == (400, "bad_query")
    assert refused.value.advice
