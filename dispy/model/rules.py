"""Which nodes a cluster may use, as far as that can be said without asking its program."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

RULES_LIMIT = 10_000  # of one cluster


class Rule(NamedTuple):
    """Hosts, and how many processors of each.

    host: an address, or a pattern with `*`, which matches as a prefix. port: None: any. cpus: of a
    node at most so many; negative: all but so many; 0: all.
    """

    host: str
    port: int | None
    cpus: int

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for hosts that have to be found first."""
        return "*" in self.host

    def slots_of(self, address: str, port: int, cpus: int) -> int | None:
        """Return how many processors of a node that has `cpus` may be used; None: no such node."""
        if self.port is not None and port != self.port:
            return None
        if self.is_pattern:
            if re.match(re.escape(self.host).replace(r"\*", ".*"), address) is None:
                return None
        elif address != self.host:
            return None
        if self.cpus > 0:
            return min(cpus, self.cpus)
        return max(0, cpus + self.cpus) or cpus


def read_rules(said: Any) -> tuple[Rule, ...]:
    """Return the rules that a program has said; raises ValueError for what is none."""
    if not isinstance(said, (list, tuple)) or len(said) > RULES_LIMIT:
        raise ValueError("it is no list of rules, or too long")
    found = []
    for entry in said:
        if not isinstance(entry, (list, tuple)) or len(entry) != 3:
            raise ValueError("a rule has three parts")
        host, port, cpus = entry
        if not isinstance(host, str) or len(host) > 1000 or host.count("*") > 8:
            raise ValueError("a rule's host is a text")
        if not (port is None or type(port) is int) or type(cpus) is not int:
            raise ValueError("a rule's port and processors are numbers")
        found.append(Rule(host, port, cpus))
    return tuple(found)


def slots_by(rules: Sequence[Rule], address: str, port: int, cpus: int) -> int | None:
    """Return what the first rule says that means a node; None: none does."""
    for rule in rules:
        slots = rule.slots_of(address, port, cpus)
        if slots is not None:
            return slots
    return None
