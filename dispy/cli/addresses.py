"""Where a service may listen: elsewhere than on loopback with a key alone."""

import ipaddress
import logging
import socket

from dispy.model.credentials import Credentials
from dispy.model.errors import DispyError
from dispy.model.setting import Value

RUNS = {
    "node": ("run programs here", "--secret-file"),
    "scheduler": ("run programs on its nodes", "--cluster_secret_file"),
}


def check_address(wanted: Value, credentials: Credentials, what: str) -> None:
    """Refuse to listen where others could come in without a key; raises DispyError.

    what: "node" or "scheduler".
    """
    host, (power, option) = wanted.value, RUNS[what]
    try:
        address = socket.gethostbyname(host) if ":" not in host else host
        loopback = ipaddress.ip_address(address).is_loopback
    except (OSError, ValueError) as error:
        raise DispyError(
            f"{wanted.source}: {host!r} is not an address of this machine: {error}"
        ) from None
    if loopback or credentials.protected:
        return
    if not credentials.insecure:
        raise DispyError(
            f"a {what} at {host} would let everybody who reaches it {power}. Give it a secret "
            f"that its clients have too (`dispy secret` makes one, {option}=<file> names one), or "
            f"type --insecure if everybody in that network may"
        )
    logging.getLogger(f"dispy.{what}").warning(
        "--insecure: everybody who reaches %s may %s, and nothing is encrypted; `dispy secret` "
        "ends that", host, power,
    )  # fmt: skip
