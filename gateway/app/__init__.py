"""The composition root: the one part that builds the others and connects them."""

from gateway.app.replica import run

__all__ = ["run"]
