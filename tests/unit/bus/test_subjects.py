import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.bus.subjects import Subjects, check

subjects = Subjects("gateway")

# all characters, lone surrogates too, and often those that mean something
topics = st.text(st.sampled_from(":.%*> \r\nAa0_-é€𝄞\ud800") | st.characters(), max_size=30)


def topic_of(subject: str) -> str:
    tokens = subject.removeprefix("gateway.topic.").split(".")
    parts = [b"" if token == "%" else unquote_to_bytes(token) for token in tokens]
    return ":".join(part.decode("utf-8", "surrogatepass") for part in parts)


@pytest.mark.parametrize(
    ("topic", "subject"),
    [
        ("room:42", "gateway.topic.room.42"),
        ("room", "gateway.topic.room"),
        ("Room:a-b_c", "gateway.topic.Room.a-b_c"),
        ("", "gateway.topic.%"),
        (":", "gateway.topic.%.%"),
        ("room:", "gateway.topic.room.%"),
        ("a::b", "gateway.topic.a.%.b"),
        ("%", "gateway.topic.%25"),
        ("a.b:*:>", "gateway.topic.a%2Eb.%2A.%3E"),
        ("room:zoé", "gateway.topic.room.zo%C3%A9"),
        ("a b\r\n", "gateway.topic.a%20b%0D%0A"),
        ("room\n", "gateway.topic.room%0A"),
        ("𝄞", "gateway.topic.%F0%9D%84%9E"),
    ],
)
def test_a_topic_has_the_documented_subject(topic: str, subject: str) -> None:
    assert subjects.topic(topic) == subject


@given(topics)
def test_every_topic_has_a_subject_that_nats_takes(topic: str) -> None:
    assert re.fullmatch(r"gateway\.topic(\.[A-Za-z0-9_%-]+)+", subjects.topic(topic))
    check(subjects.topic(topic))


@given(topics)
def test_a_subject_leads_back_to_its_topic_and_no_other(topic: str) -> None:
    assert topic_of(subjects.topic(topic)) == topic


@given(topics)
def test_what_is_stored_comes_back_on_the_topics_subject(topic: str) -> None:
    """The server that stores it maps the one on the other, token for token."""
    assert subjects.all_stored == "gateway.store.>"
    assert subjects.all_topics == "gateway.topic.>"
    tokens = subjects.stored(topic).removeprefix("gateway.store.")
    assert subjects.topic(topic) == f"gateway.topic.{tokens}"


def test_the_stream_has_the_prefix_as_its_name() -> None:
    assert subjects.stream == "GATEWAY"


def test_replicas_have_subjects_of_their_own() -> None:
    assert subjects.replicas == "gateway.replicas"
    assert subjects.replica("web-1.example") == "gateway.replica.web-1%2Eexample"
    assert subjects.replica("") == "gateway.replica.%"


@pytest.mark.parametrize("prefix", ["", "a.b", "a b", "*", ">", "a\n", "é"])
def test_a_prefix_that_is_no_single_token_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="first token"):
        Subjects(prefix)


@pytest.mark.parametrize(
    "subject", ["", ".", "a.", ".a", "a..b", "a b", "a\r\nPUB b 0", "a.*", ">", "a*", "a\n", "a\t"]
)
def test_what_is_no_concrete_subject_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match="not a subject"):
        check(subject)
