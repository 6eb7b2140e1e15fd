"""Free ports on loopback, not of those the kernel gives to clients, which may be taken any moment."""

import os
import random
import socket
import subprocess
import time
from itertools import count
from pathlib import Path

FIRST = 10_000
PER_WORKER = 2_500
"""Ports of each process that runs tests at the same time; together they end below 32,768."""

START_SECONDS = 120.0

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_numbers = count(random.randrange(PER_WORKER))


def free_port() -> int:
    """A port nobody listens on now, and that was not given out by this process a moment ago."""
    while True:
        port = FIRST + _worker * PER_WORKER + next(_numbers) % PER_WORKER
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once the port of a process that was started accepts connections."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"it does not start:\n{log.read_text()}"
            time.sleep(0.05)
        else:
            return
