"""The internal HTTP API: what backends, probes and scrapers call; never reachable from the public port."""

from gateway.api.openapi import document
from gateway.api.problem import bad_request
from gateway.api.routes import build_api

__all__ = ["bad_request", "build_api", "document"]
