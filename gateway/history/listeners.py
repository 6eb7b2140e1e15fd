"""Those who want to know when messages may have been missed."""

import structlog

from gateway.history.base import Listener

_log = structlog.get_logger(__name__)


class Listeners:
    """Told one after another; one that fails harms nobody else."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Tell it, too, from now on."""
        self._listeners.append(listener)

    def tell(self) -> None:
        """Tell all."""
        for listener in tuple(self._listeners):
            try:
                listener()
            except Exception as problem:  # noqa: BLE001 - a bug there must not stop the history
                _log.error("history listener failed", problem=type(problem).__name__)
