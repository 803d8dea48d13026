"""Bytes of a fuzzer as choices: so that each change of a byte changes one decision.

Made here and not by the fuzzer's own means, so that what it has found is replayed without it.
Where there are no more bytes every choice is the first one.
"""

import re
import struct
from collections.abc import Sequence
from typing import Any, TypeVar

import msgpack

Thing = TypeVar("Thing")

NUMBERS = [
    -1, 2**31 - 1, 2**31, 2**32, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1, -(2**31),
    -(2**63), 255, 256, 1000, 65536, 10**6,
]  # fmt: skip
REALS = [
    0.0,
    -0.0,
    0.5,
    1e-9,
    1.7e9,
    -1.0,
    1e308,
    -1e308,
    float("inf"),
    -float("inf"),
    float("nan"),
]
TEXTS = [
    "", "compute", "x" * 300, "../x", "a/b", "/", "é", "\0", "\n", "\x1b[2J", "\ud7ff", "cpython",
    "worker", "job", "many", "%s", "{}", "a" * 5000,
]  # fmt: skip
BYTES = [b"", b"x", b"\x80\x05N.", b"k" * 16, b"d" * 32, b"e" * 32, b"y" * 70_000]
DEPTHS = [600, 1, 17, 400, 510, 511, 512, 600, 1000]  # around what msgpack takes and packs


_NESTED = re.compile(rb"\xad<nested (\d{4})>")


def pack(body: Any) -> bytes:
    """Return a body's bytes; raises ValueError, OverflowError for what msgpack does not know."""
    packed: bytes = msgpack.packb(body)
    return _NESTED.sub(lambda found: b"\x91" * int(found[1]) + b"\x90", packed)


class Choices:
    """Takes one byte after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """How many bytes have not been taken."""
        return len(self._data) - self._at

    def next_step(self) -> None:
        """A step begins; of interest to who writes choices down."""

    def byte(self) -> int:
        if self._at >= len(self._data):
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def raw(self, size: int) -> bytes:
        """Return at most so many bytes as they are."""
        taken = self._data[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def rest(self) -> bytes:
        return self.raw(self.left)

    def of(self, things: Sequence[Thing]) -> Thing:
        return things[self.byte() % len(things)]

    def below(self, count: int) -> int:
        return self.byte() % count

    def seldom(self) -> bool:
        """Say yes for one byte in sixteen, and never for none."""
        return self.byte() >= 240

    # -- values that msgpack knows

    def whole(self) -> int:
        """Return a number: mostly one of those that are counted from 1."""
        first = self.byte()
        if first < 220:
            return first % 8
        if first < 250:
            return NUMBERS[first % len(NUMBERS)]
        return int(struct.unpack("<q", self.raw(8).ljust(8, b"\0"))[0])

    def real(self) -> float:
        first = self.byte()
        if first < 200:
            return REALS[first % len(REALS)]
        return float(struct.unpack("<d", self.raw(8).ljust(8, b"\0"))[0])

    def text(self) -> str:
        first = self.byte()
        if first < 200:
            return TEXTS[first % len(TEXTS)]
        return self.raw(first - 200).decode(errors="ignore")

    def bytes(self) -> bytes:
        first = self.byte()
        if first < 200:
            return BYTES[first % len(BYTES)]
        return self.raw(first - 200)

    def nested(self) -> str:
        """Return what `pack` makes a list in a list in a list of: our own packer takes only 511."""
        return f"<nested {self.of(DEPTHS):04}>"

    def anything(self, depth: int = 3) -> Any:
        """Return any value."""
        kind = self.below(12 if depth else 8)
        match kind:
            case 0:
                return None
            case 1:
                return self.whole()
            case 2:
                return self.text()
            case 3:
                return self.bytes()
            case 4:
                return self.real()
            case 5:
                return bool(self.below(2))
            case 6:
                return []
            case 7:
                return {}
            case 8 | 9:
                return [self.anything(depth - 1) for _ in range(self.below(5))]
            case 10:
                return {self.text(): self.anything(depth - 1) for _ in range(self.below(4))}
            case _:
                return self.nested()

    def of_type(self, kind: type) -> Any:
        """Return a value of a type."""
        makers: dict[type, Any] = {
            str: self.text, int: self.whole, float: self.real, bytes: self.bytes,
        }  # fmt: skip
        if kind in makers:
            return makers[kind]()
        if kind is list:
            return [self.anything(2) for _ in range(self.below(4))]
        if kind is dict:
            return {self.text(): self.anything(2) for _ in range(self.below(4))}
        return None
