"""Unit tests stay in their process: what starts another belongs elsewhere, for example in tests/system."""

import os
import subprocess
from collections.abc import Iterator
from typing import NoReturn

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", _refuse)
        patch.setattr(os, "fork", _refuse)
        yield


def _refuse(*_: object, **__: object) -> NoReturn:
    pytest.fail("a unit test starts a process")
