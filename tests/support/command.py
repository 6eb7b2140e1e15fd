"""The gateway's own commands, run in this process and as one of their own."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from typer.testing import CliRunner, Result

from gateway.cli.commands import app

COMMAND = (sys.executable, "-m", "gateway")


def invoke(*arguments: str) -> Result:
    """Run a command in this process; it ends with an exit code, not with an exception."""
    result = CliRunner().invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def run_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a process until it ends."""
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command as a process, which is gone afterwards."""
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()
