"""The client's address behind trusted proxies."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network


class PeerAddress:
    """Finds the client's address in X-Forwarded-For.

    Only what a trusted proxy appended is believed: reading from the right, the first address that is no
    trusted proxy is the client. Anything further left is what that client wrote itself (CWE-348).

    Args:
        trusted: Networks of proxies, such as ``10.0.0.0/8``.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = [ip_network(network) for network in trusted]

    def resolve(self, remote: str | None, forwarded_for: Sequence[str]) -> str:
        """The client's address.

        Args:
            remote: Address of the TCP peer.
            forwarded_for: All X-Forwarded-For headers, in order.
        """
        address = remote or ""
        hops = [hop.strip() for header in forwarded_for for hop in header.split(",")]
        while hops and self._is_trusted(address):
            hop = hops.pop()
            try:
                ip_address(hop)
            except ValueError:
                break  # the proxy did not append an address; go no further
            address = hop
        return address

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(
            parsed in network for network in self._trusted if network.version == parsed.version
        )
