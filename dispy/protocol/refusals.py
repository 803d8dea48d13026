"""What a log says of connections that are refused: a flood of them must not fill a disk. Sans-I/O.

Of a network each reason is said once a minute, and a few reasons at most; of all together a few
lines. What is not said is counted, and the sum is said when the minute is over.
"""

from dataclasses import dataclass, field

MINUTE = 60.0  # seconds
REASONS = 5  # said in it of one network
LINES = 60  # said in it in all


@dataclass(slots=True)
class _Network:
    said: set[str] = field(default_factory=set)
    unsaid: int = 0


class Refusals:
    """Belongs to one log. Its owner asks for `sums` a MINUTE after the first refusal."""

    def __init__(self) -> None:
        self.counts = False  # something has been refused in this minute
        self._networks: dict[str, _Network] = {}  # LINES at most
        self._lines = self._others = 0

    def refused(self, network: str, reason: str) -> bool:
        """Count a refusal; return whether it is to be said."""
        self.counts = True
        known = self._networks.get(network)
        if known is None:
            if len(self._networks) >= LINES:
                self._others += 1
                return False
            known = self._networks[network] = _Network()
        if reason in known.said or len(known.said) >= REASONS or self._lines >= LINES:
            known.unsaid += 1
            return False
        known.said.add(reason)
        self._lines += 1
        return True

    def sums(self) -> list[str]:
        """Return what the minute that is over has had besides, in lines; begin a new one."""
        lines = [
            f"refused {network}: {one.unsaid} times more within a minute"
            for network, one in self._networks.items()
            if one.unsaid
        ]
        if self._others:
            lines.append(f"refused other addresses: {self._others} times within a minute")
        self.counts = False
        self._networks.clear()
        self._lines = self._others = 0
        return lines
