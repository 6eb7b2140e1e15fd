"""The operator's pages at ``/console`` of the internal listener."""

from gateway.console.routes import Console
from gateway.console.sources import Sources

__all__ = ["Console", "Sources"]
