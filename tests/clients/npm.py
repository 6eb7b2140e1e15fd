"""The packages of the npm registry that tests use, installed when they are first needed."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import require

DIRECTORY = Path(__file__).parent / "node"
INSTALL_SECONDS = 300


def install(directory: Path = DIRECTORY) -> Path:
    """Have the packages a folder's lock names in place; returns where they are.

    Raises:
        AssertionError: npm cannot install them; the message is npm's own.
    """
    npm = require("node", shutil.which("npm"))
    modules = directory / "node_modules"
    stamp = modules / ".installed"
    wanted = hashlib.sha256((directory / "package-lock.json").read_bytes()).hexdigest()
    with _alone(directory):
        if not stamp.exists() or stamp.read_text() != wanted:
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund"],
                cwd=directory,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"npm ci failed:\n{done.stderr}"
            stamp.write_text(wanted)
    return modules


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other test runs of this checkout from installing at the same time."""
    lock = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
