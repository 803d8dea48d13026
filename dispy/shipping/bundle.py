"""What the buffer of OPEN holds: all the code of a computation, which its node never reads.

One pickle for everything (the computation, setup, cleanup, what it depends on), so that
functions of one module share their globals on the node as they do at home.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import msgpack

from dispy.protocol.frames import Memory
from dispy.shipping.payloads import this_python, unpack


@dataclass(frozen=True, slots=True)
class Bundle:
    """The code of a computation as bytes.

    `pickled` is a pickle of the table of its parts ("computation", "setup", "cleanup",
    "depends"), good only for the `python` named; `source` is the same with source texts, which
    others get instead. A computation that is a program is the bytes of its file.
    """

    pickled: bytes | None = None
    program: bytes | None = None
    source: bytes | None = None
    python: str = ""

    def packed(self) -> bytes:
        """Return the bytes that travel."""
        packed: bytes = msgpack.packb(asdict(self))
        return packed

    def parts(self) -> dict[str, Any]:
        """Rebuild the parts, in a worker; raises whatever their code raises."""
        pickled = self.source or self.pickled
        return dict(unpack(pickled)) if pickled else {}

    def translated(self) -> "Bundle":
        """Return the bundle for a node with another Python; raises CannotTranslate."""
        if self.pickled is None:
            return self
        from dispy.shipping.translating import translate

        source = translate(self.pickled)
        assert isinstance(source, bytes), "nothing lies beside a computation's code"
        return replace(self, pickled=None, source=source)


def make_bundle(name: str, parts: Mapping[str, Any], program: bytes | None = None) -> Bundle:
    """Return the bundle of a computation's parts, without those that are None.

    `name` is the computation's in the error: raises CannotPack.
    """
    # Late: a worker, which only reads bundles, needs none of it to start.
    from dispy.shipping.code import pack_code

    given = {key: part for key, part in parts.items() if part is not None}
    pickled = pack_code(given, name) if given else None
    return Bundle(pickled, program, python=this_python())


def read_bundle(packed: Memory) -> Bundle:
    """Return the bundle that these bytes hold; raises ValueError for other bytes."""
    return Bundle(**msgpack.unpackb(packed))
