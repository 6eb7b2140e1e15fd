"""Logging: one line for each event, never a token, key or payload.

That holds by construction where others choose the words. Libraries put request lines, headers and
arguments into their messages, and anything may stand in the text of an exception; so of the former the place
in the library is written, with the text if it stands so in its source, and of the latter the type and the
places it went through.

What an outsider can cause is told of once a second: a call with ``throttle="some kind"`` is held back if
another of its event and kind was less than a second ago, and the next that passes says how many were
``held``. The kinds are few, whatever outsiders do.
"""

import asyncio
import linecache
import logging
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SILENT: Final = ("aiohttp.access", "aiohttp.websocket")
"""
Loggers that are off.

``access`` writes the request line, with the token in its query; ``websocket`` writes the subprotocols a
client offered, among which phoenix.js sends its token. Nothing else of interest comes from them: the
gateway counts connects and their refusals itself.
"""

FOREIGN: Final = ("aiohttp", "asyncio", "nats", "websockets")
"""
Libraries whose messages are withheld.

``aiohttp.server`` writes the bytes of HTTP it could not read, ``asyncio`` the arguments of callbacks
that raised, ``nats`` the addresses it connects to, ``websockets`` all frames. Their warnings and errors are
still seen, with the place in the library, its own words there, and the exception's type and place; what is
below a warning is not. Each place is told of once a second.
"""

OWN_ERRORS: Final = "gateway.errors"
"""Module of the exceptions whose text is our own, and may be written."""

WITHHELD: Final = "message of a library withheld"

OUTSIDERS_SECONDS: Final = 1.0
"""How often something that an outsider can cause is logged at most."""

RECENT_LINES: Final = 100
"""Warnings and errors that are kept for operators to look at."""

_LONGEST_CALL_LINES: Final = 8
"""Lines of source in which the text of a call of a logger stands."""

QUIET_SECONDS: Final = 5.0
"""How often the same trouble is logged at most: what fails may fail with every message."""


class Throttle:
    """Lets each kind of event through once in a while.

    Args:
        seconds: Time between two of a kind.
        clock: Monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._held: dict[str, tuple[float, int]] = {}

    def admit(self, kind: str) -> int | None:
        """How many of a kind were held back since the last that passed; None to hold back this one."""
        now = self._clock()
        passed, held = self._held.get(kind, (now - self._seconds, 0))
        if now - passed < self._seconds:
            self._held[kind] = (passed, held + 1)
            return None
        self._held[kind] = (now, 0)
        return held


class RecentLines(logging.Handler):
    """Keeps the last warnings and errors as JSON, just as they are written to the log.

    Attributes:
        lines: The oldest first.
    """

    def __init__(self, most: int) -> None:
        super().__init__(logging.WARNING)
        self.lines: deque[str] = deque(maxlen=most)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.lines.append(self.format(record))


recent: Final = RecentLines(RECENT_LINES)
"""Of this process, from :func:`set_up` on."""

_outsiders = Throttle(OUTSIDERS_SECONDS)


def background_error(task: str, problem: Exception) -> None:
    """Hand an error that nobody waits for to the event loop's exception handler, to be counted and logged.

    Args:
        task: What it happened in; one of few names, as it is a metric's label.
    """
    context = {"message": f"error in {task}", "exception": problem, "background": task}
    asyncio.get_running_loop().call_exception_handler(context)


def teardown(task: str, *steps: Callable[[], object]) -> None:
    """Take all steps in order; the error of one is counted and logged, and keeps none from being taken.

    Args:
        task: What ends; a metric's label, as for :func:`background_error`.
    """
    for step in steps:
        try:
            step()
        except Exception as problem:  # noqa: BLE001 -- what is left undone would stay for good
            background_error(task, problem)


def set_up(
    *, level: str, style: str, stream: TextIO | None = None, worker: int | None = None
) -> None:
    """Send all events to one stream. May be called again.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``: the least that is written.
        style: ``json``, ``console``, or ``auto`` for console on a terminal.
        stream: None for standard error.
        worker: Number of this process, if it is one of several workers, for each line.
    """
    stream = stream or sys.stderr
    terminal = stream.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    common: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        common.append(lambda _, __, event: {**event, "worker": worker})
    structlog.configure(
        processors=[_hold_back, *common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )

    def form(renderer: Processor) -> logging.Formatter:
        meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*common, _withhold],
            processors=[meta, _describe_exception, _order, renderer],
        )

    as_json = structlog.processors.JSONRenderer(default=str)
    for_people = style == "console" or (style == "auto" and terminal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(form(_console(colors=terminal) if for_people else as_json))
    recent.setFormatter(form(as_json))
    for each in (handler, recent):
        each.removeFilter(_admit_library)  # set up again
        each.addFilter(_admit_library)
    logging.basicConfig(level=number, handlers=[handler, recent], force=True)
    # When a line cannot be written, logging would print its raw message and arguments instead.
    logging.raiseExceptions = False
    for name in FOREIGN:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    for name in SILENT:
        logging.getLogger(name).disabled = True
    logging.getLogger("aiohttp.server").addFilter(_is_ours_to_know)


def _is_ours_to_know(record: logging.LogRecord) -> bool:
    """Not so what clients send that is no HTTP, or no gzip: it is answered 400, and no fault of ours."""
    problem = record.exc_info[1] if record.exc_info else None
    modules = {"aiohttp.http_exceptions", "aiohttp.web_protocol", "zlib"}
    return type(problem).__module__ not in modules


def _console(*, colors: bool) -> Processor:
    # The default would show tracebacks with the values of local variables.
    return structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )


def _hold_back(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if "throttle" in event:
        held = _outsiders.admit(f"{event['event']}: {event.pop('throttle')}")
        if held is None:
            raise structlog.DropEvent
        if held:
            event["held"] = held
    return event


def _library(record: logging.LogRecord) -> str | None:
    name = record.name.partition(".")[0]
    return name if name in FOREIGN else None


def _admit_library(record: logging.LogRecord) -> bool:
    if _library(record) is None:
        return True
    known = vars(record)
    if "held" not in known:  # each handler asks
        known["held"] = _outsiders.admit(f"{record.pathname}:{record.lineno}")
    return known["held"] is not None


def _withhold(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    record: logging.LogRecord = event["_record"]
    library = _library(record)
    if library is not None:
        event["event"] = WITHHELD
        event.pop("positional_args", None)
        event["library"] = library
        event["at"] = f"{PurePath(record.pathname).name}:{record.lineno}, in {record.funcName}"
        if _is_in_source(record):
            event["said"] = record.msg
        if held := getattr(record, "held", 0):
            event["held"] = held
    return event


def _is_in_source(record: logging.LogRecord) -> bool:
    """Whether a message is what the library's author wrote, with nothing put into it."""
    source = linecache.getlines(record.pathname)[record.lineno - 1 :][:_LONGEST_CALL_LINES]
    return isinstance(record.msg, str) and any(f'"{record.msg}"' in line for line in source)


def _order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """What a reader looks for first comes first."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def _describe_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    problem = event.pop("exc_info", None)
    if problem is True:
        problem = sys.exc_info()[1]
    elif isinstance(problem, tuple):
        problem = problem[1]
    if isinstance(problem, BaseException):
        event["exception"] = "\n".join(_lines(problem))
    return event


def _lines(problem: BaseException) -> Iterator[str]:
    """An exception as Python prints it, without the texts of exceptions others raised."""
    cause = problem.__cause__
    if cause is None and not problem.__suppress_context__:
        cause = problem.__context__
    if cause is not None:
        yield from _lines(cause)
        yield "which led to"
    yield from (line.rstrip("\n") for line in traceback.format_tb(problem.__traceback__))
    kind = f"{type(problem).__module__}.{type(problem).__qualname__}".removeprefix("builtins.")
    if type(problem).__module__ == OWN_ERRORS:
        yield f"{kind}: {problem}"
    elif isinstance(problem, OSError) and problem.strerror:
        yield f"{kind}: {problem.strerror}"
    else:
        yield kind
    if isinstance(problem, BaseExceptionGroup):
        for member in problem.exceptions:
            yield from _lines(member)
