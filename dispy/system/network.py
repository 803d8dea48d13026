"""The networks that this machine is in, and sharing a port with other programs of it."""

import ipaddress
import socket
import sys
from dataclasses import dataclass
from typing import Any

LOOPBACK_BROADCAST = "127.255.255.255"


@dataclass(frozen=True, slots=True)
class Network:
    """An IPv4 network of an interface that is up."""

    interface: str
    address: str  # ours in it
    prefix: int  # bits that all its addresses share
    broadcast: str

    def covers(self, address: str) -> bool:
        """Say whether an address belongs to it; "" and 0.0.0.0 stand for all of ours."""
        if address in ("", "0.0.0.0"):
            return True
        try:
            return ipaddress.ip_address(address) in ipaddress.ip_network(
                f"{self.address}/{self.prefix}", strict=False
            )
        except ValueError:
            return False

    @property
    def is_loopback(self) -> bool:
        """Whether it is inside this machine."""
        return self.address.startswith("127.")

    def __str__(self) -> str:
        return f"{self.interface} ({self.broadcast})"


def is_loopback(address: str) -> bool:
    """Say whether an address (not a name) is inside this machine."""
    found = ipaddress.ip_address(address.split("%")[0])
    return (getattr(found, "ipv4_mapped", None) or found).is_loopback


LOOPBACK = Network("loopback", "127.0.0.1", 8, LOOPBACK_BROADCAST)
_ANY = Network("default route", "0.0.0.0", 0, "255.255.255.255")


def networks() -> list[Network]:
    """Return the networks that take broadcasts, loopback first.

    Without psutil only the loopback network and that of the default route are known.
    """
    try:
        import psutil  # late: 10 ms, and a machine may lack it
    except ImportError:
        return [LOOPBACK, _ANY]
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = [LOOPBACK]
    for interface, addresses in psutil.net_if_addrs().items():
        for entry in addresses:
            if interface in up and entry.family == socket.AF_INET and entry.netmask:
                network = _network(interface, entry.address, entry.netmask)
                if network is not None:
                    found.append(network)
    return found


def _network(interface: str, address: str, netmask: str) -> Network | None:
    if address.startswith("127."):
        return None  # known already; its entry names no broadcast
    network = ipaddress.ip_network(f"{address}/{netmask}", strict=False)
    if network.prefixlen > 30:
        return None  # two addresses or one: there is nobody else to reach
    return Network(interface, address, network.prefixlen, str(network.broadcast_address))


def share_port(sock: Any) -> None:
    """Let several programs bind this UDP port, so that each hears broadcasts.

    Linux hands a broadcast to all sockets bound so, also those of other users; BSD and macOS
    want SO_REUSEPORT for it. Datagrams to one address reach only one of them.
    """
    option = "SO_REUSEADDR" if sys.platform in ("linux", "win32") else "SO_REUSEPORT"
    sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), 1)


def source_towards(host: str, destination: str) -> str:
    """Return the address from which a socket that is bound to `host` sends to a destination.

    "": there is no way to it.
    """
    if host not in ("", "0.0.0.0", "::"):
        return host
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            if family == socket.AF_INET:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.connect((destination, 9))  # sends nothing
            return str(sock.getsockname()[0]).split("%")[0]
        except OSError:
            return ""


def own_address(host: str) -> str:
    """Return the address by which others know a node that listens at `host` of this machine."""
    if host not in ("", "0.0.0.0", "::"):
        return host
    others = [network.address for network in networks() if not network.is_loopback]
    return others[0] if others else LOOPBACK.address
