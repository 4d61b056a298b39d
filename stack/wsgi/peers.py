"""Whom the server believes what it says of the client: X-Forwarded-For and -Proto, and when a request was taken.

A unix socket's peer is believed where the socket's mode keeps strangers out. Others are to be named: by address, by
network, or, for a unix socket that is open to everybody, by the word `unix`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

UNIX = "unix"


class Peers:
    """Peers by their networks, and perhaps those of open unix sockets."""

    def __init__(self, networks: tuple[IPv4Network | IPv6Network, ...] = (), *, unix: bool = False) -> None:
        self.networks = networks
        self.unix = unix

    def __contains__(self, address: str) -> bool:
        """Whether the TCP peer of this address is among them."""
        if not self.networks:
            return False
        found = ip_address(address)
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:  # an IPv4 peer of a socket for both
            found = found.ipv4_mapped
        return any(found in each for each in self.networks)


NOBODY = Peers()


def peers(texts: list[str]) -> Peers:
    """The peers that these words name.

    Raises:
        ValueError: one of them is no address and no network.
    """
    return Peers(tuple(ip_network(each) for each in texts if each != UNIX), unix=UNIX in texts)
