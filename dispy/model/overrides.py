"""`dispy.config`: what a program written for dispy 4 overwrites before it creates a cluster.

`DispyPort`, `NodePort`, `SharedSchedulerPort`, `MaxFileSize` and `Java` are heeded, unless an
argument says otherwise. The others are there so that programs which set them run; see
docs/coming-from-dispy-4.rst.
"""

import re

from dispy.model.errors import DispyError
from dispy.model.ports import CLIENT_PORT, NODE_PORT, SCHEDULER_PORT, WEB_PORT

DispyPort = CLIENT_PORT  # the base from which dispy 4.11 counts; a node's port is one more
ClientPort: int | str = CLIENT_PORT
NodePort: int | str = NODE_PORT
SharedSchedulerPort: int | str = SCHEDULER_PORT
HTTPServerPort = WEB_PORT
IPv4MulticastGroup = "239.255.61.59"
IPv6MulticastGroup = "ff05::b409:3171:9705:5134:6159"
MsgTimeout = 10  # seconds
MaxFileSize = 0  # bytes of one file, 0: no limit
Java = "/usr/bin/java"  # what runs a computation that is a `.java` file, on the node


def node_port() -> int | None:
    """Return the port of nodes that a program has set here, None if it has set none."""
    return _port("NodePort", NodePort, NODE_PORT, 1)


def scheduler_port() -> int | None:
    """Return the port of a shared scheduler that a program has set here, None if it has not."""
    return _port("SharedSchedulerPort", SharedSchedulerPort, SCHEDULER_PORT, 2)


def _port(name: str, value: int | str, default: int, above: int) -> int | None:
    """Return a port that is so many above the base, if either has been set; raises DispyError.

    dispy 4 evaluated any expression; here it is a number, or `DispyPort` plus or minus one.
    """
    if value == default:
        return None if DispyPort == CLIENT_PORT else DispyPort + above
    found = re.fullmatch(r"\s*(DispyPort)?\s*([+-]?\s*\d+)?\s*", str(value))
    if found is None or not any(found.groups()):
        raise DispyError(f"dispy.config.{name} is a number or 'DispyPort + number', not {value!r}")
    base, number = found.groups()
    return (DispyPort if base else 0) + int((number or "0").replace(" ", ""))
