"""Running commands in this process."""

from collections.abc import Callable

import pytest
from typer.testing import Result

from tests.support import command

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    """Runs a command in this process."""
    return command.invoke
