"""Free ports on loopback."""

import socket


def free_port() -> int:
    """A port nobody listens on now; not from the range the kernel gives to clients."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
