"""Two servers play one sequence: where they differ, and which row of ``docs/differences.md`` excuses that."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tests.differential.playing import Live, Seen
from tests.differential.sequences import Message, Step

PATIENCE_SECONDS = 2.0
"""How long what the other server's client has may take to come."""


class Difference(msgspec.Struct):
    """What one client saw of a step at one server and not at the other; ``client`` is as in a sequence."""

    index: int
    step: Step
    client: list[str]
    reference: Seen
    gateway: Seen

    def __str__(self) -> str:
        where = f"step {self.index} {self.step}, as {self.client} sees it:"
        return f"{where}\n  reference {self.reference}\n  gateway   {self.gateway}"

    @property
    def sent(self) -> Message:
        """The message; of five nulls if it was none."""
        return self.step[2] if self.step[1] in ("send", "binary") else [None] * 5

    @property
    def event(self) -> Any:
        """Of the message."""
        return self.sent[3]

    @property
    def binary(self) -> bool:
        """Whether the payload was bytes."""
        return bool(self.step[1] == "binary")

    def answered(self, reason: str | None) -> bool:
        """Whether all that the gateway says is a refusal with this reason, or with None an ok.

        Where the other server answers, it does too: else it is yet to come.
        """
        refusal = {"status": "error", "response": {"reason": reason}}
        wanted = refusal if reason else {"status": "ok", "response": {}}
        said = [message[4] for message in self.gateway if message[3] != "presence"]
        due = "phx_reply" in _events(self.reference)
        return (bool(said) or not due) and all(each == wanted for each in said)

    @property
    def polled(self) -> bool:
        """Whether the client polls."""
        return self.client[0] == "longpoll"


NOT_ALLOWED = "push not allowed"

Excuse = tuple[str, bool, Callable[[Difference], bool]]
"""A row by the name of its test, whether states differ from then on, and when it explains a difference."""


def _long(*values: object) -> bool:
    return any(len(json.dumps(value)) > 255 for value in values)


def _events(seen: Seen) -> set[Any]:
    return {message[3] for message in seen} - {"presence"}


EXCUSES: list[Excuse] = [
    ("rules_answer_pushes", False, lambda d: d.event == "silent" and not d.reference),
    ("rules_answer_pushes", True, lambda d: d.event == "unknown"),
    (
        "access_token_refreshes_the_socket",
        False,
        lambda d: d.event == "access_token" and bool(d.reference) and d.answered(None),
    ),
    ("live_is_for_backends", False, lambda d: d.event == "live" and d.answered(NOT_ALLOWED)),
    (
        "long_names_are_malformed",
        False,
        lambda d: _long(d.sent[2], d.event) and d.answered("malformed"),
    ),
    (
        "long_refs_are_malformed",
        False,
        lambda d: _long(d.sent[0], d.sent[1]) and d.answered("malformed"),
    ),
    (
        "a_binary_push_needs_no_join_ref",
        False,
        lambda d: d.binary and not d.sent[0] and not d.reference,
    ),
    (
        "binary_broadcasts_are_not_for_version_1",
        True,
        lambda d: d.binary and "phx_error" in _events(d.reference),
    ),
    (
        "bytes_are_not_put_into_json",
        False,
        lambda d: d.binary and d.polled and _events(d.reference) == {"bytes"} and not d.gateway,
    ),
    (
        "bytes_are_not_put_into_json",
        True,
        lambda d: d.binary and d.polled and "closed" in _events(d.reference),
    ),
    (
        "topics_that_are_no_strings_are_unmatched",
        False,
        lambda d: d.event == "phx_leave" and d.sent[2] == 5 and d.answered("unmatched topic"),
    ),
    (
        "what_is_for_an_earlier_join_is_not_heeded",
        False,
        lambda d: d.sent[0] == "0" and d.event == "shout" and not d.gateway,
    ),
    (
        "a_leave_needs_no_join_ref",
        True,
        lambda d: d.event == "phx_leave" and d.sent[0] is None and not _events(d.reference),
    ),
    (
        "reserved_events_are_refused",
        True,
        lambda d: d.event in ("phx_close", "phx_error") and d.answered(NOT_ALLOWED),
    ),
    (
        "payloads_of_broadcasts_are_objects",
        True,
        lambda d: (
            d.event == "shout" and not isinstance(d.sent[4], dict) and d.answered("malformed")
        ),
    ),
    (
        "malformed_frames_are_answered_and_counted",
        True,
        lambda d: d.step[1] == "raw" and not d.polled and d.answered("malformed"),
    ),
    (
        "batches_are_taken_line_by_line",
        True,
        lambda d: d.step[1] == "raw" and d.polled and d.answered("malformed"),
    ),
]


def differences(
    index: int,
    step: Step,
    clients: list[list[str]],
    reference: list[Seen],
    gateway: list[Seen],
) -> list[Difference]:
    """Where clients saw different things; broadcasts go another way than answers, in their own order."""
    found = []
    for client, one, other in zip(clients, reference, gateway, strict=True):
        if _ordered(one) != _ordered(other):
            only = [m for m in one if m not in other], [m for m in other if m not in one]
            found.append(Difference(index, step, client, *(only if any(only) else (one, other))))
    return found


def _ordered(seen: Seen) -> Seen:
    return sorted(seen, key=lambda message: not str(message[3]).startswith("phx_"))


def excuse(difference: Difference) -> Excuse | None:
    """The first that holds."""
    return next((each for each in EXCUSES if each[2](difference)), None)


async def compare(
    play: dict[str, Any], reference: Live | None, gateway: Live, used: set[str]
) -> list[Difference]:
    """The differences of the first step that has one nobody excuses.

    Args:
        play: Clients and steps, and what was seen of each step if it was recorded.
        reference: The other server's side, if it was not; not entered yet.
        gateway: Ours, likewise.
        used: Gets the rows that excused something.
    """
    async with reference or contextlib.nullcontext(), gateway:
        for index, step in enumerate(play["steps"]):
            await asyncio.gather(*(side.do(step) for side in (reference, gateway) if side))
            deadline = time.monotonic() + PATIENCE_SECONDS
            while True:
                other = reference.seen() if reference else play["seen"][index]
                found = differences(index, step, play["clients"], other, gateway.seen())
                excuses = [each for each in map(excuse, found) if each]
                used |= {row for row, _, _ in excuses}
                if any(parts for _, parts, _ in excuses):
                    return []  # what others see of it, and all that follows, differs too
                if len(excuses) == len(found):
                    break
                if time.monotonic() > deadline:
                    return [each for each in found if excuse(each) is None]
                await asyncio.sleep(0.01)
    return []


async def shrink(steps: list[Step], fails: Callable[[list[Step]], Awaitable[bool]]) -> list[Step]:
    """The fewest steps that still fail: none of them can be left out (ddmin, Zeller 1999)."""
    size = max(1, len(steps) // 2)
    while True:
        start, smaller = 0, False
        while start < len(steps):
            fewer = steps[:start] + steps[start + size :]
            if fewer and await fails(fewer):
                steps, smaller = fewer, True
            else:
                start += size
        if size == 1 and not smaller:
            return steps
        size = max(1, size // 2)
