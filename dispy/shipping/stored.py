"""Parts of arguments that lie in a node's store: named by their digest, mapped by its workers.

A client packs calls of the functions here, a worker makes them while it rebuilds arguments. All
workers of a node that map one content share its memory. In a worker: its main thread only.
"""

import mmap
import os
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

from dispy.model.errors import DispyError
from dispy.protocol.frames import Memory
from dispy.protocol.messages import Bulk, Payload

# Of objects that one worker keeps rebuilt; the last one whatever its size. What it maps takes room
# on the disk although the store has let it go.
KEPT_BYTES = 512 * 1024 * 1024

_directory: str | None = None  # the store of this worker's node
_objects: OrderedDict[bytes, tuple[Any, int]] = OrderedDict()  # by token, with their bytes


class Part(NamedTuple):
    """A buffer in the store. `readonly`: nobody may write to it, else each job has its own copy
    of what it writes to."""

    digest: bytes
    size: int
    readonly: bool


def use_store(directory: str | None) -> None:
    """Say where this process finds contents, before it rebuilds any."""
    global _directory
    _directory = directory


def pack_parts(pickled: Memory, parts: Sequence[Part | memoryview]) -> Payload:
    """Return a payload that is as this pickle, with some of its buffers in the store."""
    beside: list[pickle.PickleBuffer] = []
    entries = [part if isinstance(part, Part) else pickle.PickleBuffer(part) for part in parts]
    packed = pickle.dumps(_Call(bytes(pickled), entries), 5, buffer_callback=beside.append)
    return Bulk(packed, [buffer.raw() for buffer in beside]) if beside else packed


class _Call:
    def __init__(self, pickled: bytes, entries: list[Any]) -> None:
        self._parts = pickled, entries

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild, self._parts


def rebuild(pickled: Memory | Part, entries: list[Any]) -> Any:
    """Return what was packed, its parts mapped."""
    return pickle.loads(_memory(pickled), buffers=map(_memory, entries))


def rebuild_once(token: bytes, pickled: Memory | Part, entries: list[Any]) -> Any:
    """Return what was put under this token: the same object for all jobs of this process."""
    if token in _objects:
        _objects.move_to_end(token)
        return _objects[token][0]
    made = rebuild(pickled, entries)
    _objects[token] = made, sum(map(_size, (pickled, *entries)))
    kept = sum(size for _, size in _objects.values())
    while kept > KEPT_BYTES and len(_objects) > 1:
        _, (_, size) = _objects.popitem(last=False)
        kept -= size
    return made


def _size(part: Any) -> int:
    return part.size if isinstance(part, Part) else len(part)


def _memory(part: Any) -> Any:
    """Return the memory of a part: mapped, so that it costs what is looked at."""
    if not isinstance(part, Part):
        return part
    if _directory is None:
        raise DispyError("what cluster.put returns is that object only in the arguments of a job")
    access = mmap.ACCESS_READ if part.readonly else mmap.ACCESS_COPY
    with open(os.path.join(_directory, part.digest.hex()), "rb") as file:
        return memoryview(mmap.mmap(file.fileno(), part.size, access=access))
