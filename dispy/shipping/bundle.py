"""What the buffer of OPEN holds: all the code of a computation, which its node never reads.

One pickle for everything (the computation, setup, cleanup, what it depends on), so that
functions of one module share their globals on the node as they do at home.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import msgpack

from dispy.protocol.frames import Memory
from dispy.shipping.payloads import this_python, unpack


@dataclass(frozen=True, slots=True)
class Bundle:
    """The code of a computation as bytes.

    `pickled` is a pickle of the table of its parts ("init", "depends", "computation", "setup",
    "cleanup", "classes"), good only for the `python` named; `source` is the same with source
    texts, which others get instead. A computation that is a program is the bytes of its file.
    `modules` is the directory in which the user's own modules lie, among a computation's files;
    `sources` are modules of a single job, by their place ("shapes/round.py").
    """

    pickled: bytes | None = None
    program: bytes | None = None
    source: bytes | None = None
    python: str = ""
    modules: str = ""
    sources: dict[str, bytes] = field(default_factory=dict)

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


def make_bundle(
    name: str, parts: Mapping[str, Any], program: bytes | None = None
) -> tuple[Bundle, set[str]]:
    """Return the bundle of a computation's parts, and the names of all modules it imports.

    Parts that are None or empty are left out. `name` is the computation's in the error: raises
    CannotPack.
    """
    given = {key: part for key, part in parts.items() if part is not None and part != {}}
    if not given:
        return Bundle(program=program, python=this_python()), set()
    # Late: a worker, which only reads bundles, needs none of it to start.
    from dispy.shipping.code import pack_code

    pickled, imported = pack_code(given, name)
    return Bundle(pickled, program, python=this_python()), imported


def read_bundle(packed: Memory) -> Bundle:
    """Return the bundle that these bytes hold; raises ValueError for other bytes."""
    return Bundle(**msgpack.unpackb(packed))


# -- named in pickles


def call_now(function: Callable[[], Any]) -> Callable[[], Any]:
    """Call a function and return it; what follows in the pickle may need what it has done."""
    function()
    return function


def main_names(package: str | None) -> dict[str, Any]:
    """Return the globals of the worker's `__main__`, of which `package` is the client's."""
    names = vars(sys.modules["__main__"])
    names["__package__"] = package
    return names
