"""Runs a gateway whose wall clock jumps: SIGUSR1 sets it ahead, SIGUSR2 back, each by ``JUMP_SECONDS``.

``python -m tests.faults.clock serve …``. Only Python's clock is shifted, which is all the gateway asks.
"""

import importlib
import signal
import time

JUMP_SECONDS = 600

_clock = time.time
_shift = 0


def _shifted() -> float:
    return _clock() + _shift


def _jump(number: int, _: object) -> None:
    global _shift  # noqa: PLW0603 -- one process, one clock
    _shift += JUMP_SECONDS if number == signal.SIGUSR1 else -JUMP_SECONDS


if __name__ == "__main__":
    time.time = _shifted
    signal.signal(signal.SIGUSR1, _jump)
    signal.signal(signal.SIGUSR2, _jump)
    importlib.import_module("gateway.cli").main()  # not before: defaults of arguments are the clock
