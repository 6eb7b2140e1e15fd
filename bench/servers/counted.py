"""A replica that can be asked what its memory consists of."""

import json
import socket
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from bench.builds import Build
from bench.servers.gateway import EquippedGateway
from bench.servers.rivals import RIVALS

ANSWER_SECONDS: Final = 120.0

Sizes = Mapping[str, tuple[float, float]]
"""Number and bytes, by name."""


class CountedGateway(EquippedGateway):
    """The gateway with a thread beside it that answers, see ``bench/rivals/census.py``.

    Args:
        traced: Whether it keeps which line allocated what. That takes memory of its own.
    """

    def __init__(
        self,
        build: Build,
        *,
        traced: bool = False,
        alone: bool = False,
        idle_seconds: float = 3600,
    ) -> None:
        super().__init__(build, alone=alone, idle_seconds=idle_seconds)
        self._traced = traced
        self._socket = ""

    def program(self, directory: Path) -> list[str]:
        self._socket = str(directory / "census")
        traced = ["traced"] if self._traced else []
        return [str(RIVALS / "census.py"), self._socket, *traced]

    def types(self) -> Sizes:
        """All objects, by type."""
        found: Sizes = self._ask("types")
        return found

    def lines(self) -> Sizes:
        """What is allocated, by the line that did; in all as ``total``."""
        found: Sizes = self._ask("lines")
        return found

    def blocks(self) -> int:
        """Pieces of memory that Python has in use, once its garbage is collected."""
        found: int = self._ask("blocks")
        return found

    def _ask(self, question: str) -> Any:
        with closing(socket.socket(socket.AF_UNIX)) as asking:
            asking.settimeout(ANSWER_SECONDS)
            asking.connect(self._socket)
            with asking.makefile("rw") as lines:
                lines.write(f"{question}\n")
                lines.flush()
                return json.loads(lines.readline())
