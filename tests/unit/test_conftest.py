"""The guard over unit tests."""

import asyncio
import os
import subprocess
import sys

import pytest

COMMAND = (sys.executable, "-c", "")


def test_a_unit_test_that_starts_a_process_fails() -> None:
    with pytest.raises(pytest.fail.Exception):
        subprocess.run(COMMAND, check=True)
    with pytest.raises(pytest.fail.Exception):
        asyncio.run(spawn())
    with pytest.raises(pytest.fail.Exception):
        os.fork()


async def spawn() -> None:
    await asyncio.create_subprocess_exec(*COMMAND)
