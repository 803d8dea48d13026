"""A module of the user's own, beside the program `kinds_of_code`."""

from dataclasses import dataclass

FACTOR = 3


@dataclass
class Brick:
    """Something that both sides know."""

    length: int

    def tripled(self) -> "Brick":
        """Return one three times as long."""
        return Brick(self.length * FACTOR)


def triple(number: int) -> int:
    """Use a global name of this module."""
    return number * FACTOR
