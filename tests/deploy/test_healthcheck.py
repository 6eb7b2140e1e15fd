"""The image's health check."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.conftest import StartGateway

SCRIPT: Final = Path(__file__).parents[2] / "deploy/image/healthcheck"


@contextmanager
def started_with(*arguments: str) -> Iterator[int]:
    """A process with arguments of the gateway's, in place of it; its id."""
    command = [sys.executable, "-c", "input()", "serve", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            yield process.pid
        finally:
            process.communicate(b"\n")


def healthy(address: str, process: int | None = None) -> bool:
    """What it says of a gateway whose environment names an address."""
    command = ["bash", str(SCRIPT), str(os.getpid() if process is None else process)]
    environment = os.environ | {"GATEWAY_SERVER__INTERNAL": address}
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=30)
    return done.returncode == 0


async def test_the_health_check_asks_where_the_configuration_says(
    start_gateway: StartGateway,
) -> None:
    gateway = start_gateway()
    port, other = gateway.internal_port, gateway.public_port

    assert healthy(f"127.0.0.1:{port}")
    assert healthy(f"0.0.0.0:{port}")
    assert not healthy(f"[::]:{port}"), "it listens on IPv4 alone"
    assert not healthy(f"127.0.0.1:{other}"), "no /livez there"
    for flags in (
        ("--set", f"server.internal=0.0.0.0:{port}"),
        (f"--set=server.internal=0.0.0.0:{port}",),
    ):
        with started_with(*flags) as process:
            assert healthy(f"127.0.0.1:{other}", process), "a flag comes before the environment"

    gateway.signal(signal.SIGSTOP)
    assert not await asyncio.to_thread(healthy, f"127.0.0.1:{port}"), "it hangs"
    gateway.kill()
    assert not healthy(f"127.0.0.1:{port}"), "it is gone"
