"""JetStream's API in JSON, as far as one stream needs it (nats-server 2.11; direct gets: NATS ADR-31)."""

import contextlib
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from gateway.bus.refusals import RefusalKind, kind_of_code
from gateway.bus.remote import RemoteBus
from gateway.bus.requests import NO_RESPONDERS, Reply
from gateway.bus.stream_position import unix_seconds
from gateway.errors import BusUnavailable, HistoryUnavailable, OutcomeUnknown

ANSWER_SECONDS: Final = 2.0
"""How long a server may take to answer; one without a leader for the stream does not answer at all."""

DIRECT_SECONDS: Final = (0.5, 0.5, 1.0, 2.0)
"""
How long the tries of a direct get may take.

Each goes to whichever server the others choose. For up to 90 seconds that may be one that hangs, until they
notice; the next try is likely to find another.
"""

NAME_IN_USE: Final = 10058
NO_STREAM: Final = 10059
NO_MESSAGE: Final = 10037
_EXPECTED: Final = (NAME_IN_USE, NO_STREAM, NO_MESSAGE)
"""Answers rather than refusals."""


_END_OF_BATCH: Final = 204
_NOTHING_FOUND: Final = 404

JsonObject: TypeAlias = dict[str, Any]
_Answer = TypeVar("_Answer", bound=msgspec.Struct)


class ApiError(msgspec.Struct):
    """An error of JetStream."""

    err_code: int = 0
    description: str = ""


class _Failure(msgspec.Struct):
    error: ApiError | None = None


class StreamState(msgspec.Struct):
    """What a stream holds."""

    first_seq: int
    last_seq: int


class StreamGroup(msgspec.Struct):
    """The servers that hold a stream."""

    leader: str = ""


class StreamInfo(msgspec.Struct):
    """A stream.

    Attributes:
        config: As the server has it; a later release may have more keys than are known here.
        created: When it was made.
        ts: The server's time of this answer.
    """

    config: JsonObject
    created: str
    state: StreamState
    ts: str
    cluster: StreamGroup = msgspec.field(default_factory=StreamGroup)

    @property
    def now(self) -> float:
        """The server's time of this answer, in Unix seconds."""
        return unix_seconds(self.ts.encode())

    @property
    def epoch(self) -> str:
        """When it was made, to the nanosecond, as a compact word."""
        whole, _, fraction = self.created.rstrip("Z").partition(".")
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return f"{seconds * 10**9 + int(fraction.ljust(9, '0')):x}"


class StoredMessage(msgspec.Struct):
    """One message of a stream, read from its leader."""

    seq: int
    time: str
    data: bytes = b""  # JSON has both in base64, which msgspec takes away
    hdrs: bytes = b""

    @property
    def stored_at(self) -> float:
        """When it was stored, in Unix seconds."""
        return unix_seconds(self.time.encode())

    def header(self, name: bytes) -> bytes:
        """What its publisher said under a name; empty where it said nothing."""
        _, _, behind = self.hdrs.partition(b"\r\n%b: " % name)
        return behind.partition(b"\r\n")[0]


class _MessageAnswer(msgspec.Struct):
    message: StoredMessage


class _Purged(msgspec.Struct):
    purged: int = 0


class StreamApi:
    """What can be asked about one stream.

    Whatever is asked raises ``HistoryUnavailable`` when there is no answer or it is a refusal.

    Args:
        name: The stream's.
    """

    def __init__(self, bus: RemoteBus, name: str) -> None:
        self._bus = bus
        self._name = name

    @property
    def max_query_bytes(self) -> int:
        """The longest request."""
        return self._bus.max_envelope_bytes

    async def info(self) -> StreamInfo | None:
        """The stream, from its leader; None where there is none."""
        try:
            return await self._ask("STREAM.INFO", None, StreamInfo)
        except HistoryUnavailable as problem:
            if problem.code == NO_STREAM:
                return None
            raise

    async def create(self, config: JsonObject) -> StreamInfo:
        """Make the stream; one that is there just so counts as made."""
        return await self._ask("STREAM.CREATE", config, StreamInfo)

    async def update(self, config: JsonObject) -> StreamInfo:
        return await self._ask("STREAM.UPDATE", config, StreamInfo)

    async def message(self, **query: str | int) -> StoredMessage | None:
        """One message, from the stream's leader: nothing that was acknowledged is overlooked.

        Args:
            query: ``seq``, or ``last_by_subj``, or ``next_by_subj`` with ``seq``.
        """
        try:
            return (await self._ask("STREAM.MSG.GET", query, _MessageAnswer)).message
        except HistoryUnavailable as problem:
            if problem.code == NO_MESSAGE:
                return None
            raise

    async def direct(self, **query: str | int | list[str]) -> list[Reply]:
        """Messages from whichever server comes first, and the end of the batch as the last part.

        A server that is not the leader may lack the newest messages.
        """
        body = msgspec.json.encode(query)
        parts = await self._direct(body)
        if (status := parts[-1].status) not in {_END_OF_BATCH, _NOTHING_FOUND}:
            raise HistoryUnavailable("unavailable", f"DIRECT.GET: status {status}")
        return parts

    async def purge(self, subject: str) -> int:
        """Remove the messages of a subject; returns how many.

        Raises:
            OutcomeUnknown: No answer.
        """
        return (await self._call("STREAM.PURGE", {"filter": subject}, _Purged)).purged

    async def _direct(self, body: bytes) -> list[Reply]:
        subject = f"$JS.API.DIRECT.GET.{self._name}"
        *tries, last = DIRECT_SECONDS
        try:
            for seconds in tries:
                with contextlib.suppress(OutcomeUnknown):
                    return await self._bus.request_parts(subject, body, seconds=seconds)
            return await self._bus.request_parts(subject, body, seconds=last)
        except (BusUnavailable, OutcomeUnknown) as problem:
            raise HistoryUnavailable("unavailable", f"DIRECT.GET: {problem}") from problem

    async def _ask(self, operation: str, query: JsonObject | None, kind: type[_Answer]) -> _Answer:
        """Call where it does not matter whether something was done without an answer."""
        try:
            return await self._call(operation, query, kind)
        except OutcomeUnknown as problem:
            raise HistoryUnavailable("unavailable", f"{operation}: {problem}") from problem

    async def _call(self, operation: str, query: JsonObject | None, kind: type[_Answer]) -> _Answer:
        subject = f"$JS.API.{operation}.{self._name}"
        body = b"" if query is None else msgspec.json.encode(query)
        try:
            reply = await self._bus.request(subject, body, seconds=ANSWER_SECONDS)
        except BusUnavailable as problem:
            raise HistoryUnavailable("unavailable", f"{operation}: {problem}") from problem
        if reply.status == NO_RESPONDERS:
            self._bus.refusals.note(RefusalKind.NO_JETSTREAM, f"{operation}: no responders")
            raise HistoryUnavailable("no_jetstream", f"{operation}: nobody answers")
        error = msgspec.json.decode(reply.body, type=_Failure).error
        if error is not None:
            refused = kind_of_code(error.err_code)
            if error.err_code not in _EXPECTED:
                self._bus.refusals.note(refused, f"{operation}: {error.description}")
            raise HistoryUnavailable(
                "no_jetstream" if refused is RefusalKind.NO_JETSTREAM else "unavailable",
                f"{operation}: {error.description}",
                error.err_code,
            )
        return msgspec.json.decode(reply.body, type=kind)
