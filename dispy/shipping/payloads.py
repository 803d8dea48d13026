"""Arguments and results to bytes and back.

Plain pickle first (0.3 us for a small tuple, cloudpickle 2.7 us); by value with cloudpickle
where the bytes name `__main__`, whose objects the other side has not, or where plain pickle
refuses. Called in the thread of whoever submits or asks; holds no state.
"""

import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any

from dispy.model.errors import DispyError
from dispy.protocol.frames import Memory
from dispy.protocol.messages import INLINE_LIMIT, Bulk, Payload

RAW_SIZE = 1024 * 1024  # bytes; a larger `bytes` is not copied into a pickle
CHUNK = b"chunk:"  # before the pickle of many calls' items; no pickle begins so
_MAIN = b"__main__"
_other_python: str | None = None  # who reads what this process packs, if its Python is another
# cloudpickle's registries are global and not thread-safe.
by_value_lock = threading.Lock()


def this_python() -> str:
    """Return what this process calls the Python that it runs on: "cpython 3.11"."""
    return f"{sys.implementation.name} {sys.version_info[0]}.{sys.version_info[1]}"


class CannotPack(DispyError):
    """Something that a job needs, or gave back, cannot leave its process."""


class _Raw:
    """Stands for memory of Python's own types while that is pickled: out of band."""

    def __init__(self, data: Memory) -> None:
        self._data = data

    def __reduce__(self) -> tuple[Any, ...]:
        data = self._data
        if not isinstance(data, memoryview):
            return _from_raw, (type(data), pickle.PickleBuffer(data))
        flat = data if data.c_contiguous else data.tobytes()
        shape = data.shape if data.ndim > 1 else None
        return _from_view, (pickle.PickleBuffer(flat), data.format, shape)


def _from_raw(kind: type[bytes] | type[bytearray], buffer: Memory) -> bytes | bytearray:
    return buffer if isinstance(buffer, kind) else kind(buffer)


class _CallWithCode:
    """Stands for a call in a pickle whose code is to be loaded before its arguments are."""

    def __init__(self, code: bytes, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        self._parts = _Code(code), arguments, keywords

    def __reduce__(self) -> tuple[Any, ...]:
        return _call_with_code, self._parts


class _Code:
    """A bundle that is loaded where the pickle is."""

    def __init__(self, code: bytes) -> None:
        self._code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_code, (self._code,)


# What loads the code of a job; whoever runs jobs puts it here.
code_loader: list[Callable[[bytes], None]] = []


def _load_code(code: bytes) -> None:
    code_loader[-1](code)


def _call_with_code(
    loaded: None, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return arguments, keywords


def _from_view(buffer: Memory, form: Any, shape: tuple[int, ...] | None) -> memoryview:
    flat = memoryview(buffer).cast("B")
    return flat.cast(form, shape) if shape is not None else flat.cast(form)


_RAW_TYPES = frozenset({bytes, bytearray, memoryview})
_VIEW_FORMATS = frozenset("bBhHiIlLqQnNfd?c")  # that `memoryview.cast` knows


def _raw(value: Any) -> Any:
    kind = type(value)
    if kind not in _RAW_TYPES:
        return value
    if kind is memoryview:
        plain = value.format in _VIEW_FORMATS and (value.nbytes or value.ndim == 1)
        return _Raw(value) if plain else value
    return _Raw(value) if len(value) > RAW_SIZE else value


def pack(value: object, what: str) -> Payload:
    """Return the bytes of `value`; `what` names it in the error ("argument 2 of compute").

    Large buffers in it (NumPy's arrays, say) are not copied: they travel beside the pickle
    and must not change until then. Raises CannotPack, which says what in it is at fault.
    """
    if type(value) not in _RAW_TYPES and _other_python is None:
        try:  # what nearly every value is, without a step too many
            beside: list[pickle.PickleBuffer] = []
            packed = pickle.dumps(value, 5, buffer_callback=beside.append)
            if not beside and _MAIN not in packed:
                return packed
        except Exception:  # see `_pack`
            pass
    try:
        payload = _pack(value)
    except _Refused as refusal:
        raise _cannot_pack(value, what, refusal) from refusal.__cause__
    return payload if _other_python is None else _translated(payload, what)


class _Refused(Exception):
    """Neither pickle nor cloudpickle takes a value; the cause says why."""


def _cannot_pack(value: object, what: str, refusal: _Refused) -> CannotPack:
    from dispy.shipping.byvalue import ByValuePickler
    from dispy.shipping.culprits import describe_culprit

    with by_value_lock:
        culprit = describe_culprit(value, ByValuePickler)
    return CannotPack(
        f"{what} cannot be sent to another process: {culprit} ({refusal.__cause__}). Pass plain "
        f"data, or build it inside the job."
    )


def _pack(value: object) -> Payload:
    beside: list[pickle.PickleBuffer] = []
    value = _raw(value)
    try:
        packed = pickle.dumps(value, protocol=5, buffer_callback=beside.append)
    except Exception:  # whatever a user's __reduce__ raises; cloudpickle may know better
        packed = _MAIN
    if _MAIN in packed:
        beside.clear()
        packed = _pack_by_value(value, beside)
    payload: Payload = packed
    if beside:
        payload = Bulk(packed, [_flat(buffer) for buffer in beside])
        if payload.size < INLINE_LIMIT:
            payload = _pack_whole(payload, value)
    return payload


def pack_for(python: str) -> None:
    """Have `pack` give what that other Python ("cpython 3.13") can load, in this whole process."""
    global _other_python
    from dispy.shipping.translating import expect_others

    _other_python = python
    expect_others()


def _translated(payload: Payload, what: str) -> Payload:
    from dispy.shipping.translating import CannotTranslate, translate

    try:
        return translate(payload)
    except CannotTranslate as error:
        raise CannotPack(
            f"{what} cannot be sent from {this_python()}, which runs here, to {_other_python}: "
            f"{error}. Return plain data instead."
        ) from None


def pack_whole(value: object, what: str) -> bytes:
    """Return the bytes of `value` in one piece, large buffers within. Raises CannotPack."""
    payload = pack(value, what)
    return payload if isinstance(payload, bytes) else _pack_whole(payload, value)


def _flat(buffer: pickle.PickleBuffer) -> memoryview:
    try:
        return buffer.raw()
    except BufferError:  # neither C nor Fortran order: only a copy is flat
        return memoryview(bytes(memoryview(buffer)))


def _pack_whole(payload: Bulk, value: object) -> bytes:
    """Return small buffers within the pickle: one piece costs less than several."""
    if _MAIN in bytes(payload.pickled):
        return _pack_by_value(value, None)
    return pickle.dumps(value, protocol=5)


def _pack_by_value(value: object, beside: "list[pickle.PickleBuffer] | None") -> bytes:
    from dispy.shipping.byvalue import dump  # 16 ms that simple values do not need

    try:
        with by_value_lock:
            packed = dump(value, None if beside is None else beside.append)
    except Exception as error:  # foreign code: any object's __reduce__
        raise _Refused from error
    return packed


def pack_call(
    name: str, arguments: tuple[Any, ...], keywords: dict[str, Any], code: bytes | None = None
) -> Payload:
    """Return the bytes of one call of the computation `name`; raises CannotPack that names
    the argument at fault.

    `code`: a packed bundle that is loaded for this call alone.
    """
    beside: list[pickle.PickleBuffer] = []
    try:  # what nearly every call is, without a step too many
        if code is None and _RAW_TYPES.isdisjoint(map(type, arguments)):
            packed = pickle.dumps((arguments, keywords), 5, buffer_callback=beside.append)
            if not beside and _MAIN not in packed:
                return packed
    except Exception:  # see `pack`
        beside.clear()
    call = tuple(map(_raw, arguments)), keywords
    try:
        return _pack(call if code is None else _CallWithCode(code, *call))
    except _Refused as refusal:
        for position, value in enumerate(arguments, 1):
            pack(value, f"argument {position} of {name}")
        for keyword, value in keywords.items():
            pack(value, f"argument {keyword!r} of {name}")
        raise _cannot_pack(call, f"a call of {name}", refusal) from refusal.__cause__


def pack_items(name: str, items: Any) -> Payload:
    """Return the bytes of many calls of one argument each; raises CannotPack."""
    packed = pack(items, f"items for {name}")
    if isinstance(packed, Bulk):
        return Bulk(CHUNK + bytes(packed.pickled), packed.beside)
    return CHUNK + packed


def is_items(payload: Payload) -> bool:
    """Say whether `pack_items` made this payload."""
    return payload.startswith(CHUNK)


def unpack(packed: Payload | Memory, skip: int = 0) -> Any:
    """Return the value of bytes that `pack` made, in a worker or in the user's own program.

    `skip` bytes stand before the pickle. Shared buffers have been mapped. Raises whatever the
    objects' own code raises. Never called by a node or scheduler.
    """
    if isinstance(packed, Bulk):
        return pickle.loads(memoryview(packed.pickled)[skip:], buffers=packed.beside)
    return pickle.loads(memoryview(packed)[skip:] if skip else packed)
