"""``python -m gateway.workers NUMBER``: one worker, started by the supervisor."""

import os
import signal
import sys
import threading
import time
from typing import Final

import msgspec

HURRY_SECONDS: Final = 6.0
"""How long a worker has, when its supervisor is gone, to tell clients and the others before it is cut off."""

_STDIN: Final = 0


def main() -> int:
    """Serve as told; returns the exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # loading the rest takes a while, in which a signal has to end it
    from gateway import log  # noqa: PLC0415
    from gateway.app.orders import Orders  # noqa: PLC0415
    from gateway.app.replica import run  # noqa: PLC0415

    # unbuffered: a thread that waits in the buffered one would hold a lock that the interpreter's end needs
    with open(_STDIN, "rb", buffering=0, closefd=False) as pipe:
        orders = msgspec.json.decode(pipe.readline(), type=Orders)
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    settings = orders.config.log
    log.set_up(level=settings.level, style=settings.format, worker=orders.worker)
    try:
        return run(orders.config, orders)
    except OSError as problem:  # a certificate that is none
        sys.stderr.write(f"error: cannot serve: {problem.strerror or type(problem).__name__}\n")
        return 1


def _end_with_the_supervisor() -> None:
    """End at the end of standard input: in a hurry, and whatever becomes of that."""
    while os.read(_STDIN, 4096):
        pass
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    time.sleep(HURRY_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
