"""The client's address behind trusted proxies."""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

from gateway.transport.request import HandshakeRequest

_Address: TypeAlias = IPv4Address | IPv6Address

KNOWN_PEERS: Final = 1024
"""Addresses of TCP peers that are kept as they are shown: to find that out takes 5 % of a connect."""

_FORM: Final = re.compile(r"\[([^\[\]]*)\](?::\d{1,5})?|([^:]*):\d{1,5}|(.*)", re.DOTALL)
"""What proxies append: an address, in brackets or not, with a port or without (RFC 7239 section 6)."""


class PeerAddress:
    """Finds the client's address in X-Forwarded-For.

    Only what a trusted proxy appended is believed: reading from the right, the first address that is no
    trusted proxy is the client. Anything further left is what that client wrote itself (CWE-348).

    Args:
        trusted: Networks of proxies, such as ``10.0.0.0/8``.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = [_network(network) for network in trusted]

    def of(self, request: HandshakeRequest) -> str:
        """The address of the client that sends a request."""
        return self.resolve(request.remote, request.headers.getall("X-Forwarded-For", ()))

    def resolve(self, remote: str | None, forwarded_for: Sequence[str]) -> str:
        """The client's address.

        Args:
            remote: Address of the TCP peer.
            forwarded_for: All X-Forwarded-For headers, in order.
        """
        if not forwarded_for:
            return _shown(remote or "")
        known = _parsed(remote or "")
        hops = [hop.strip() for header in forwarded_for for hop in header.split(",")]
        while hops and known is not None and self._is_trusted(known):
            hop = _parsed(hops.pop())
            if hop is None:
                break  # the proxy did not append an address; go no further
            known = hop
        return (remote or "") if known is None else str(known)

    def _is_trusted(self, address: _Address) -> bool:
        return any(
            address in network for network in self._trusted if network.version == address.version
        )


@lru_cache(KNOWN_PEERS)
def _shown(remote: str) -> str:
    """The address of a TCP peer in its usual form."""
    known = _parsed(remote)
    return remote if known is None else str(known)


def _network(text: str) -> IPv4Network | IPv6Network:
    network = ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    return network if mapped is None else ip_network((mapped, max(0, network.prefixlen - 96)))


def _parsed(text: str) -> _Address | None:
    """The address in one of a hop's forms; of one that is IPv4 within IPv6, the IPv4 one."""
    form = _FORM.fullmatch(text)
    try:
        address = ip_address(next(filter(None, form.groups()), "") if form else "")
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
