"""Arguments and results to bytes and back.

Plain pickle first (0.3 us for a small tuple, cloudpickle 2.7 us); by value with cloudpickle
where the bytes name `__main__`, whose objects the other side has not, or where plain pickle
refuses. Called in the thread of whoever submits or asks; holds no state.
"""

import pickle
import threading
import traceback
from dataclasses import dataclass
from typing import Any

from dispy.model.errors import DispyError

CHUNK = b"chunk:"  # before the pickle of many calls' items; no pickle begins so
_MAIN = b"__main__"
# cloudpickle's registries are global and not thread-safe.
by_value_lock = threading.Lock()


class CannotPack(DispyError):
    """Something that a job needs, or gave back, cannot leave its process."""


def pack(value: object, what: str) -> bytes:
    """Return the bytes of `value`; `what` names it in the error ("argument 2 of compute").

    Raises CannotPack.
    """
    try:
        packed = pickle.dumps(value, protocol=5)
    except Exception:  # whatever a user's __reduce__ raises; cloudpickle may know better
        packed = _MAIN
    return packed if _MAIN not in packed else _pack_by_value(value, what)


def _pack_by_value(value: object, what: str) -> bytes:
    import cloudpickle  # 16 ms that simple values do not need

    try:
        with by_value_lock:
            packed: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception as error:  # foreign code: any object's __reduce__
        raise CannotPack(
            f"{what} cannot be sent to another process: {error}. Pass plain data, or build "
            f"it inside the job."
        ) from error
    return packed


def pack_call(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> bytes:
    """Return the bytes of one call of the computation `name`; raises CannotPack that names
    the argument at fault."""
    try:
        return pack((arguments, keywords), f"a call of {name}")
    except CannotPack:
        for position, value in enumerate(arguments, 1):
            pack(value, f"argument {position} of {name}")
        for keyword, value in keywords.items():
            pack(value, f"argument {keyword!r} of {name}")
        raise


def unpack(packed: bytes | memoryview) -> Any:
    """Return the value of bytes that `pack` made, in a worker or in the user's own program.

    Raises whatever the objects' own code raises. Never called by a node or scheduler.
    """
    return pickle.loads(packed)


@dataclass(frozen=True, slots=True)
class Failure:
    """How one call failed: the traceback as text, and the exception itself where it packs."""

    text: str
    error: bytes | None


def describe_failure(error: BaseException, skip: int) -> tuple[str, bytes | None]:
    """Return the fields of a Failure; the first `skip` frames are dispy's own."""
    frames = error.__traceback__
    for _ in range(skip):
        frames = frames.tb_next if frames else None
    text = "".join(traceback.format_exception(type(error), error, frames))
    try:
        return text, pack(error, "the exception")
    except BaseException:  # foreign code: the exception's own class
        return text, None
