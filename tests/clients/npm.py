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
MODULES = DIRECTORY / "node_modules"
INSTALL_SECONDS = 300


def install() -> Path:
    """Have the locked packages in place; returns their directory.

    Raises:
        AssertionError: npm cannot install them; the message is npm's own.
    """
    npm = require("node", shutil.which("npm"))
    stamp = MODULES / ".installed"
    wanted = hashlib.sha256((DIRECTORY / "package-lock.json").read_bytes()).hexdigest()
    with _alone():
        if not stamp.exists() or stamp.read_text() != wanted:
            done = subprocess.run(
                [npm, "ci", "--no-audit", "--no-fund"],
                cwd=DIRECTORY,
                capture_output=True,
                text=True,
                timeout=INSTALL_SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"npm ci failed:\n{done.stderr}"
            stamp.write_text(wanted)
    return MODULES


@contextmanager
def _alone() -> Iterator[None]:
    """Keep other test runs of this checkout from installing at the same time."""
    directory = os.open(DIRECTORY, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
