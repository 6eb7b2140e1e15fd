"""Parses addresses to listen on: ``host:port``, IPv6 in brackets."""

from ipaddress import ip_address


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``0.0.0.0:4000``, ``localhost:4000`` or ``[::1]:4000``.

    Raises:
        ValueError: It is none, or the port is above 65535.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError("no port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ip_address(host).version != 6:
            raise ValueError("brackets are for IPv6")
    elif ":" in host:
        raise ValueError("IPv6 without brackets")
    if not host or any(char.isspace() or char in "/@[]" for char in host):
        raise ValueError("no host")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def reachable(address: str) -> str:
    """The ``host:port`` by which a client on this machine reaches a listener.

    An address that means all interfaces cannot be connected to everywhere, so loopback takes its place.
    """
    host, port = parse_address(address)
    try:
        parsed = ip_address(host)
    except ValueError:
        return address
    if parsed.is_unspecified:
        host = "127.0.0.1" if parsed.version == 4 else "::1"
    return f"[{host}]:{port}" if parsed.version == 6 else f"{host}:{port}"
