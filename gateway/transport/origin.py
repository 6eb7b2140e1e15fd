"""Which web pages may open a socket (``Phoenix.Socket.Transport.check_origin``).

Browsers send cookies and reach private hosts on behalf of any page; the Origin header, which a page
cannot forge, is what tells the team's own pages from others.
"""

from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class OriginPolicy:
    """Decides by a list of allowed origins.

    Args:
        allowed: Empty: the page's host must be the host it connects to. ``"*"``: any. Else entries
            like ``https://app.example.com``, ``//example.com:8443`` or ``//*.example.com`` (which
            includes ``example.com``); scheme and port are compared where the entry has them.
    """

    def __init__(self, allowed: Sequence[str]) -> None:
        self._any = "*" in allowed
        self._allowed = [urlsplit(entry) for entry in allowed if entry != "*"]

    def allows(self, origin: str | None, host: str) -> bool:
        """Whether a page may connect.

        Args:
            origin: The Origin header; clients that are no browsers send none and are let in.
            host: The Host header.
        """
        if origin is None or self._any:
            return True
        try:
            page = urlsplit(origin)
            if not page.scheme or not page.hostname:
                return False
            if not self._allowed:
                return page.hostname == urlsplit(f"//{host}").hostname
            return any(_matches(entry, page) for entry in self._allowed)
        except ValueError:  # a port that is no number, an unclosed bracket
            return False


def _matches(entry: SplitResult, page: SplitResult) -> bool:
    if entry.scheme and entry.scheme != page.scheme:
        return False
    wanted, host = entry.hostname or "", page.hostname or ""
    if wanted.startswith("*."):
        if host != wanted[2:] and not host.endswith(wanted[1:]):
            return False
    elif wanted != host:
        return False
    # An entry with a scheme means that scheme's port, as an Origin header leaves a default port away.
    port = entry.port or (_DEFAULT_PORTS.get(entry.scheme) if entry.scheme else None)
    return port is None or port == (page.port or _DEFAULT_PORTS.get(page.scheme))
