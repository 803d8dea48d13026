"""Pickles that hold functions and classes by value, and how their code is guarded.

cloudpickle does the work. Its one part that belongs to a single version of Python is bytecode,
and loading that of another one crashes the process or gives wrong results. So each piece of
code is packed as a *blob* that says which Python it is for, and loaded here alone: by that
Python as it is, by any other from its source text, if that came along, else not at all.

Imported late: cloudpickle costs 16 ms.
"""

import io
import marshal
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import CodeType
from typing import Any
from weakref import WeakSet

import cloudpickle

from dispy.model.errors import DispyError
from dispy.shipping import classes
from dispy.shipping.payloads import this_python
from dispy.shipping.translating import MARK

OWN_PYTHON = this_python()
_GENERATED = b"dispy auto:".ljust(len(MARK))  # not looked for: it has no source
_LENGTH = 4  # bytes

_set_class_state = cloudpickle.cloudpickle._class_setstate


class OtherPython(DispyError):
    """Code is for another Python, and its source text is not there."""


class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, with code in blobs and classes that are set up by `set_class`."""

    def __init__(
        self, file: io.BytesIO, beside: Callable[[pickle.PickleBuffer], Any] | None = None
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=beside)
        self._generated: set[int] = set()  # ids of code that the other side generates anew

    def reducer_override(self, value: Any) -> Any:
        """Say how a function, class or code is pickled."""
        if type(value) is CodeType:
            name = getattr(value, "co_qualname", value.co_name)
            if id(value) in self._generated:
                return load_generated, (_blob(value, _GENERATED), name, value.co_freevars)
            return load_code, (_blob(value), name)
        part = classes.reduce_part(value)
        if part is not None:
            return part
        reduced = super().reducer_override(value)
        if type(reduced) is tuple and reduced[-1] is _set_class_state:
            if value not in _rebuilt:
                _originals.add(value)
            kind = classes.kind_of(value)
            self._generated.update(map(id, classes.generated_code(value, kind)))
            make, arguments, (content, others), *nothing, _ = reduced
            if kind in ("", classes.DATACLASS) and "__slots__" in content:
                # Left to cloudpickle they would be no slots on the other side.
                arguments[3]["__slots__"] = content.pop("__slots__")
                content = classes.without_slots(content)
            if kind == classes.ENUM:
                others = {"members": classes.attributes_of_members(value)}
            reduced = make, arguments, (OWN_PYTHON, kind, (content, others)), *nothing, set_class
        return reduced


def dump(value: object, beside: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """Return the pickle of a value, functions and classes of `__main__` by value.

    Large buffers are handed to `beside` instead. Raises whatever the value's own code raises.
    Not thread-safe: cloudpickle's registries are global.
    """
    file = io.BytesIO()
    ByValuePickler(file, beside).dump(value)
    return file.getvalue()


# -- code


def _blob(code: CodeType, mark: bytes = MARK) -> bytes:
    """Return a piece of code for this Python; it keeps the names of its source files."""
    python, marshalled = OWN_PYTHON.encode(), marshal.dumps(code)
    length = len(python) + 1 + len(marshalled)
    return b"".join([mark, length.to_bytes(_LENGTH, "big"), python, b"\0", marshalled])


def _open(blob: bytes) -> tuple[str, bytes]:
    python, _, marshalled = blob[len(MARK) + _LENGTH :].partition(b"\0")
    return python.decode(), marshalled


def digest(blob: bytes) -> bytes:
    """Return the name by which a blob's source text is found."""
    import hashlib  # 3 ms that nodes with our own Python need not wait for

    return hashlib.blake2b(blob, digest_size=16).digest()


def codes_in(pickled: bytes) -> Iterator[tuple[bytes, CodeType]]:
    """Yield the digest and the code of each blob in a pickle that was made by this Python.

    The pickle is not loaded. Only for what this program has packed itself.
    """
    at = pickled.find(MARK)
    while at >= 0:
        start = at + len(MARK) + _LENGTH
        length = int.from_bytes(pickled[at + len(MARK) : start], "big")
        blob = pickled[at : start + length]
        python, marshalled = _open(blob)
        if python == OWN_PYTHON:
            yield digest(blob), marshal.loads(marshalled)
        at = pickled.find(MARK, start + length)


def load_code(blob: bytes, name: str) -> CodeType:
    """Return the code of a blob; the one place where code of another process is loaded."""
    python, marshalled = _open(blob)
    if python == OWN_PYTHON:
        code: CodeType = marshal.loads(marshalled)
        return code
    snippet = getattr(_loading, "sources", {}).get(digest(blob))
    if snippet is None:
        raise OtherPython(
            f"function {name!r} was sent as bytecode of {python}, and {OWN_PYTHON} runs here; "
            f"bytecode of another Python is never loaded"
        )
    from dispy.shipping.source import Snippet, compile_snippet  # only where it is needed

    return compile_snippet(Snippet(*snippet))


def load_generated(blob: bytes, name: str, cells: tuple[str, ...]) -> CodeType:
    """Return the code of a generated method; an empty one where it is generated anew."""
    python, marshalled = _open(blob)
    if python == OWN_PYTHON:
        code: CodeType = marshal.loads(marshalled)
        return code
    from dispy.shipping.source import Snippet, compile_snippet

    why = f"{name}, a generated method, was sent to another Python without its class"
    text = f"def generated(*_, **__):\n raise TypeError({why!r})\n return {', '.join(cells)}\n"
    return compile_snippet(Snippet(text, "generated", 1, "", cells, (), (), "<generated>", name))


_loading = threading.local()  # .sources: digest -> Snippet, while this thread loads


@contextmanager
def sources_at_hand(sources: Mapping[bytes, tuple[Any, ...]]) -> Iterator[None]:
    """Have the source texts that came with a pickle ready while it is loaded."""
    before = getattr(_loading, "sources", {})
    _loading.sources = {**before, **sources}
    try:
        yield
    finally:
        _loading.sources = before


# -- classes

_originals: WeakSet[type] = WeakSet()  # classes of this program that were sent from here
_rebuilt: WeakSet[type] = WeakSet()


def set_class(made: type, state: tuple[str, str, Any]) -> type:
    """Give a class that was made by cloudpickle what is in it.

    One that this program has sent itself and now meets in a result stays as it is: its methods
    use the program's globals, a copy's methods would use copies of these.
    """
    python, kind, content = state
    if made in _originals:
        return made
    if python == OWN_PYTHON:
        _set_class_state(made, content)
    elif made not in _rebuilt:
        _set_class_state(made, (classes.portable_state(content[0], kind), content[1]))
        classes.generate(made, kind, content[0])
    for name, attributes in content[1].get("members", {}).items():
        vars(vars(made)["_member_map_"][name]).update(attributes)
    _rebuilt.add(made)
    return made
