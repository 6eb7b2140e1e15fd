"""The internal HTTP API: what backends, probes and scrapers call; never reachable from the public port."""

from gateway.api.openapi import document
from gateway.api.routes import build_api

__all__ = ["build_api", "document"]
