"""Messages that wait for a client's next poll, kept until the poll after it confirms them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from gateway.protocol.messages import encode_json

PARCEL_BYTES: Final = 256 * 1024
"""Messages in one answer at most, in bytes; one write is never split."""


def entry(message: bytes) -> bytes:
    """One message as an answer lists it: JSON text as a JSON string, and a comma."""
    return encode_json(message.decode(errors="replace")) + b","


def no_farewell(code: int, reason: str) -> bytes:
    """Nothing: a client is told by the status of its next poll that its session has ended."""
    del code, reason
    return b""


class Mailbox:
    """The sending side of a long-poll session, in the place of a TCP connection.

    Messages leave in parcels, which are numbered from 1. A poll names the last parcel its client has got;
    so a parcel that was lost on the way, with the answer it was in, goes once more, and none twice.

    Args:
        emptied: Called when the session is given up, once.

    Attributes:
        number: Of the last parcel made.
        clear: How much waits has to be asked.
    """

    clear: Final = False

    def __init__(self, emptied: Callable[[], None]) -> None:
        self.number = 0
        self._emptied: Callable[[], None] | None = emptied
        self._waiting: deque[bytes] = deque()
        self._parcel = b""
        self._size = 0
        self._poll: asyncio.Future[bool] | None = None

    def write(self, data: bytes) -> None:
        """Put messages in; nothing at all ends the wait of :meth:`filled`."""
        if data:
            self._waiting.append(data)
            self._size += len(data)
        self._ring(True)

    def get_write_buffer_size(self) -> int:
        """Bytes in it, those included that went and are not known to have arrived."""
        return self._size

    def is_closing(self) -> bool:
        return self._emptied is None

    def abort(self) -> None:
        """Throw away what is in it. Idempotent."""
        emptied, self._emptied = self._emptied, None  # which knows the session, which knows this
        if emptied is None:
            return
        self._waiting.clear()
        self._parcel = b""
        self._size = 0
        self._ring(True)
        emptied()

    def parcel(self, received: int) -> bytes:
        """The messages for a client that has got so many parcels, each as :func:`entry` has it.

        Nothing while there are none, and for a number that no client of this session has now: a request
        that was under way for long.
        """
        if received == self.number - 1:
            return self._parcel  # its answer did not arrive
        if received != self.number:
            return b""
        self._size -= len(self._parcel)
        self._parcel = self._pack()
        if self._parcel:
            self.number += 1
        return self._parcel

    async def filled(self, seconds: float) -> bool:
        """Wait for something to happen; False if another poll took this one's place.

        Args:
            seconds: For how long, at most.
        """
        self._ring(False)
        poll: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._poll = poll
        try:
            async with asyncio.timeout(seconds):
                return await poll
        except TimeoutError:
            return True
        finally:
            if self._poll is poll:
                self._poll = None

    def _ring(self, still_wanted: bool) -> None:
        poll, self._poll = self._poll, None
        if poll is not None and not poll.done():
            poll.set_result(still_wanted)

    def _pack(self) -> bytes:
        waiting = self._waiting
        parts: list[bytes] = []
        size = 0
        while waiting and (not parts or size + len(waiting[0]) <= PARCEL_BYTES):
            parts.append(waiting.popleft())
            size += len(parts[-1])
        return b"".join(parts)
