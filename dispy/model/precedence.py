"""Which cluster goes before others that share nodes with it, and a job among those of its own."""

from typing import NamedTuple

# Few, because each one in use costs the scheduler a queue.
PRIORITY_MOST = 1000  # of a cluster or a job; as many below 0
WEIGHT_LEAST, WEIGHT_MOST = 0.001, 1000.0


class Precedence(NamedTuple):
    """Of one cluster."""

    owner: str = ""  # for whose limit its jobs count
    priority: int = 0
    weight: float = 1.0
    exclusive: bool = False


EQUAL = Precedence()
