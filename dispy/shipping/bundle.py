"""What the buffer of OPEN holds: all the code of a computation, which its node never reads.

One pickle for everything (the computation, setup, cleanup, what it depends on), so that
functions of one module share their globals on the node as they do at home.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack

from dispy.protocol.frames import Memory
from dispy.shipping.payloads import unpack

logger = logging.getLogger("dispy.client")

_began = time.time()  # this module is imported with `dispy.JobCluster`


@dataclass(frozen=True, slots=True)
class Bundle:
    """The code of a computation as bytes.

    `pickled` is a pickle of the table of its parts ("init", "depends", "computation", "setup",
    "cleanup", "classes"), good only for the `python` named; `source` is for other ones. A
    computation that is a program is the bytes of its file. `modules` are files of the user's own
    modules, by their place in the directory for them.
    """

    pickled: bytes | None = None
    program: bytes | None = None
    source: bytes | None = None
    python: str = ""
    modules: dict[str, bytes] = field(default_factory=dict)

    def packed(self) -> bytes:
        """Return the bytes that travel."""
        packed: bytes = msgpack.packb(asdict(self))
        return packed

    def parts(self) -> dict[str, Any]:
        """Rebuild the parts, in a worker; raises whatever their code raises."""
        return dict(unpack(self.pickled)) if self.pickled else {}


def make_bundle(
    name: str,
    parts: Mapping[str, Any],
    modules: Iterable[ModuleType] = (),
    program: bytes | None = None,
    besides: Collection[str] = (),
) -> Bundle:
    """Return the bundle of a computation's parts, without those that are None or empty.

    The user's own modules that these import come along, except those whose files have a place
    `besides` it already; and the `modules` named. `name` is the computation's in the error:
    raises CannotPack.
    """
    given = {key: part for key, part in parts.items() if part is not None and part != {}}
    needed: set[str] = set()
    pickled = None
    if given:
        # Late: a worker, which only reads bundles, needs none of it to start.
        from dispy.shipping.code import pack_code

        pickled, needed = pack_code(given, name)
    contents = _contents(needed, modules, besides)
    if contents:
        logger.debug("modules that are sent along with %s: %s", name, ", ".join(contents))
    return Bundle(pickled, program, None, this_python(), contents)


def _contents(
    needed: Collection[str], modules: Iterable[ModuleType], besides: Collection[str]
) -> dict[str, bytes]:
    from dispy.shipping.modules import files_of, own_modules

    files = {file for module in modules for file in files_of(module)}
    files.update(file for file in own_modules(needed) if file.place not in besides)
    for file in files:
        if os.stat(file.path).st_mtime > _began:
            logger.info("%s has changed since this program began: nodes get it as it is", file.path)
    return {file.place: Path(file.path).read_bytes() for file in sorted(files)}


def read_bundle(packed: Memory) -> Bundle:
    """Return the bundle that these bytes hold; raises ValueError for other bytes."""
    return Bundle(**msgpack.unpackb(packed))


def this_python() -> str:
    """Return what this process calls the Python that it runs on: "cpython 3.11"."""
    return f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"


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
