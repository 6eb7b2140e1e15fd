"""Log lines: their form, and what never stands in them."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
import structlog
from aiohttp.http_exceptions import BadStatusLine

from gateway import log
from gateway.errors import BusUnavailable

SECRET = "hunter2"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_outsiders", log.Throttle(log.OUTSIDERS_SECONDS))
    root = logging.getLogger()
    handlers, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:], logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    structlog.reset_defaults()
    for name in log.FOREIGN:
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name in log.SILENT:
        logging.getLogger(name).disabled = False


def start(
    level: str = "info", style: str = "json", stream: io.StringIO | None = None
) -> io.StringIO:
    """Log to a string."""
    stream = stream or io.StringIO()
    log.set_up(level=level, style=style, stream=stream)
    return stream


def fail() -> None:
    """Raise with a secret in the text, and another in a local variable."""
    local = SECRET + "-local"
    raise ValueError(SECRET if local else "")


def test_an_event_is_one_json_object_with_level_logger_and_time() -> None:
    stream = start()

    structlog.get_logger("gateway.app").info("listening", address="[::1]:4000")

    line = json.loads(stream.getvalue())
    assert list(line)[:3] == ["timestamp", "level", "event"]
    time = datetime.fromisoformat(line.pop("timestamp"))
    assert time.utcoffset() == timedelta(0)
    assert line == {
        "event": "listening",
        "level": "info",
        "logger": "gateway.app",
        "address": "[::1]:4000",
    }


@pytest.mark.parametrize(
    ("style", "stream", "is_json"),
    [
        ("auto", io.StringIO, True),
        ("auto", Terminal, False),
        ("json", Terminal, True),
        ("console", io.StringIO, False),
    ],
)
def test_auto_is_for_the_eye_on_a_terminal_only(
    style: str, stream: type[io.StringIO], is_json: bool
) -> None:
    written = start(style=style, stream=stream())

    structlog.get_logger().warning("something", count=3)

    assert written.getvalue().startswith("{") is is_json
    assert "something" in written.getvalue()


def test_what_is_below_the_level_is_not_written() -> None:
    stream = start(level="warning")

    structlog.get_logger().info("quiet")
    logging.getLogger("somebody").info("quiet")
    structlog.get_logger().warning("loud")

    assert stream.getvalue().count("\n") == 1


def test_messages_of_the_standard_library_take_the_same_way() -> None:
    stream = start()

    logging.getLogger("somebody").warning("said %s", "this")

    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["logger"]) == ("said this", "warning", "somebody")


@pytest.mark.parametrize("name", log.SILENT)
def test_loggers_that_write_tokens_are_off(name: str) -> None:
    stream = start(level="debug")

    logging.getLogger(name).error("offered %s", SECRET)

    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    "name", ["aiohttp.server", "aiohttp.client", "aiohttp.internal", "asyncio", "nats.aio.client"]
)
@pytest.mark.parametrize("style", ["json", "console"])
def test_a_library_is_heard_without_its_words(name: str, style: str) -> None:
    stream = start(level="debug", style=style)

    try:
        fail()
    except ValueError:
        logging.getLogger(name).exception("bad line %r", SECRET, extra={"seen": SECRET})
    logging.getLogger(name).debug("details: %s", SECRET)

    assert log.WITHHELD in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert "in fail" in stream.getvalue()
    assert SECRET not in stream.getvalue().replace("SECRET", "")


def test_a_library_is_named_with_the_place_and_the_words_its_author_wrote() -> None:
    stream = start()

    logging.getLogger("aiohttp.server").warning("cannot do %s", SECRET)
    formatted = f"cannot do {SECRET}"
    logging.getLogger("nats.aio.client").warning(formatted)

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["library"], first["said"]) == ("aiohttp", "cannot do %s")
    assert first["at"].startswith("test_log.py:")
    assert second["library"] == "nats"
    assert "said" not in second


def test_a_library_that_complains_without_end_is_heard_once_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(log, "_outsiders", log.Throttle(1.0, lambda: now))
    stream = start()
    for second in (100.0, 101.0):
        now = second
        for _ in range(5):
            logging.getLogger("asyncio").error("trouble")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("held") for line in lines] == [None, 4]


def test_what_outsiders_cause_is_told_once_a_second_and_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(log, "_outsiders", log.Throttle(1.0, lambda: now))
    stream = start()
    for second in (100.0, 101.0):
        now = second
        for reason in ("origin", "token", "origin"):
            structlog.get_logger().info("refused", reason=reason, throttle=reason)
    structlog.get_logger().info("other")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line.get("reason"), line.get("held")) for line in lines] == [
        ("refused", "origin", None),
        ("refused", "token", None),
        ("refused", "origin", 1),
        ("refused", "token", None),
        ("other", None, None),
    ]
    assert all("throttle" not in line for line in lines)


def test_broken_http_does_not_fill_the_log() -> None:
    stream = start(level="debug")

    logging.getLogger("aiohttp.server").error("bad", exc_info=BadStatusLine(SECRET))

    assert stream.getvalue() == ""


@pytest.mark.parametrize("style", ["json", "console"])
def test_an_exception_is_told_by_type_and_place_but_not_by_text(style: str) -> None:
    stream = start(style=style)

    try:
        try:
            fail()
        except ValueError as problem:
            raise KeyError(SECRET) from problem
    except KeyError:
        structlog.get_logger().exception("socket crashed")

    text = stream.getvalue()
    assert "ValueError" in text
    assert "KeyError" in text
    assert "in fail" in text
    assert SECRET not in text


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (BusUnavailable("not connected"), "gateway.errors.BusUnavailable: not connected"),
        (OSError(98, "Address already in use"), "OSError: Address already in use"),
        (ExceptionGroup("two", [ValueError(SECRET)]), "ExceptionGroup\nValueError"),
    ],
)
def test_the_text_is_told_where_it_is_our_own_or_the_systems(problem: Exception, told: str) -> None:
    stream = start()

    structlog.get_logger().error("failed", exc_info=problem)

    assert json.loads(stream.getvalue())["exception"] == told


def test_a_line_that_cannot_be_written_is_not_printed_elsewhere(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = start()
    stream.close()

    logging.getLogger("somebody").warning("said %s", SECRET)

    assert SECRET not in capsys.readouterr().err


def test_setting_up_twice_writes_once() -> None:
    first, second = start(), start()

    structlog.get_logger().info("once")

    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_a_throttle_lets_each_kind_through_once_in_a_while() -> None:
    now = 100.0
    throttle = log.Throttle(5.0, lambda: now)
    assert throttle.admit("a") == 0
    assert throttle.admit("b") == 0
    assert [throttle.admit("a"), throttle.admit("a")] == [None, None]
    now = 104.9
    assert throttle.admit("a") is None
    now = 105.0
    assert throttle.admit("a") == 3
    assert throttle.admit("a") is None


async def test_each_step_of_an_end_is_taken_whatever_becomes_of_the_others() -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    taken: list[int] = []

    def step(number: int) -> None:
        taken.append(number)
        if number % 2:
            raise ValueError(number)

    log.teardown("socket", *(partial(step, number) for number in range(4)))

    assert taken == [0, 1, 2, 3]
    assert [(context["background"], str(context["exception"])) for context in told] == [
        ("socket", "1"),
        ("socket", "3"),
    ]


def test_the_last_warnings_are_kept_as_json_whatever_the_log_looks_like() -> None:
    log.recent.lines.clear()
    stream = start(style="console")
    logger = structlog.get_logger("gateway.test")
    logger.info("not kept")
    for number in range(log.RECENT_LINES + 1):
        logger.warning("kept", number=number)
    library = logging.getLogger("nats.aio")
    for _ in range(2):
        library.error("connected to %s", SECRET)

    lines = [json.loads(line) for line in log.recent.lines]
    assert [line.get("number") for line in lines[:-1]] == list(range(2, log.RECENT_LINES + 1))
    assert lines[-1]["event"] == log.WITHHELD
    assert stream.getvalue().count(log.WITHHELD) == 1
    assert SECRET not in repr(lines)
