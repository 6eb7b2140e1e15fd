"""A scene for each test, at whose end all must have been given back."""

from collections.abc import AsyncIterator

import pytest

from tests.unit.channels.scene import Scene, opened


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A replica with the usual limits."""
    async with opened() as made:
        yield made
