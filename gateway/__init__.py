"""Phoenix Channels for every backend language: a WebSocket gateway for stateless services."""

__version__ = "0.1.0"
