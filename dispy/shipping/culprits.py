"""Finds what makes a value impossible to send: the path to it, and what it is.

Imported late, when something has failed: it packs parts again and again until it has found the
smallest that fails.
"""

import functools
import io
import pickle
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Protocol, runtime_checkable

import cloudpickle

PARTS_MOST = 20_000  # that are tried; a wider value is not searched to its end
DEPTH_MOST = 60
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None), range, slice})
_WORDS = {
    "_thread.lock": "a lock",
    "_thread.RLock": "a lock",
    "_thread._local": "data of one thread",
    "_io.TextIOWrapper": "an open file",
    "_io.BufferedReader": "an open file",
    "_io.BufferedWriter": "an open file",
    "_io.BufferedRandom": "an open file",
    "_io.FileIO": "an open file",
    "socket.socket": "a socket",
    "ssl.SSLSocket": "a socket",
    "sqlite3.Connection": "a connection to a database",
    "sqlite3.Cursor": "a connection to a database",
    "builtins.generator": "a generator that runs",
    "builtins.coroutine": "a coroutine that runs",
    "builtins.async_generator": "a generator that runs",
    "builtins.frame": "a stack frame",
    "builtins.traceback": "a traceback",
    "_asyncio.Task": "a task of an event loop",
    "_asyncio.Future": "a future of an event loop",
    "mmap.mmap": "mapped memory",
}


@runtime_checkable
class _Closing(Protocol):
    """A pickler that has to be closed."""

    def close(self) -> None:
        """Undo what it has registered."""


def describe_culprit(
    value: Any, pickler: Callable[[io.BytesIO], pickle.Pickler] = cloudpickle.Pickler
) -> str:
    """Return what in a value cannot be sent: "['model'].layers[3].lock is a lock".

    `pickler` makes what has refused `value`. Not thread-safe, as cloudpickle is not.
    """
    search = _Search(pickler)
    path, culprit = search.descend(value)
    name = f"{type(culprit).__module__}.{type(culprit).__qualname__}"
    what = _WORDS.get(name) or _a(name.removeprefix("builtins."))
    if isinstance(culprit, FunctionType | type):
        what = f"{'a class' if isinstance(culprit, type) else 'a function'} ({culprit.__name__})"
    return f"{path or 'it'} is {what}"


def _a(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


class _Search:
    def __init__(self, pickler: Callable[[io.BytesIO], pickle.Pickler]) -> None:
        self._pickler = pickler
        self._tried = 0
        self._seen: set[int] = set()

    def descend(self, value: Any) -> tuple[str, Any]:
        """Return the path to the smallest part of a value that fails, and that part."""
        path = ""
        for _ in range(DEPTH_MOST):
            self._seen.add(id(value))
            found = self._failing_part(value)
            if found is None:
                break
            step, value = found
            path += f" with {step}" if path and step.startswith("its ") else step
        return path, value

    def _failing_part(self, value: Any) -> tuple[str, Any] | None:
        try:
            for step, part in self._parts(value):
                if type(part) in _PLAIN or id(part) in self._seen:
                    continue
                self._tried += 1
                if self._tried > PARTS_MOST:
                    return None
                if not self._packs(part):
                    return step, part
        except Exception:  # foreign code: whatever an object does when it is looked at
            pass
        return None

    def _packs(self, part: Any) -> bool:
        pickler = self._pickler(io.BytesIO())
        try:
            pickler.dump(part)
        except Exception:  # foreign code
            return False
        finally:
            if isinstance(pickler, _Closing):
                pickler.close()
        return True

    def _parts(self, value: Any) -> Iterator[tuple[str, Any]]:
        """Yield what a pickle of this value would hold, and how one gets there."""
        if isinstance(value, dict):
            for key, item in value.items():
                yield f"[{_short(key)}]", item
            for key in value:
                yield f" (its key {_short(key)})", key
        elif isinstance(value, list | tuple | set | frozenset):
            ordered = isinstance(value, list | tuple)
            names = getattr(value, "_fields", None)  # of a named tuple
            for at, item in enumerate(value):
                step = f".{names[at]}" if names else f"[{at}]"
                yield step if ordered else f" (its element {_short(item)})", item
            yield from _attributes(value)
        elif isinstance(value, functools.partial):
            yield ".func", value.func
            yield ".args", value.args
            yield ".keywords", value.keywords
        elif isinstance(value, FunctionType):
            yield from _parts_of_function(value)
        elif isinstance(value, MethodType):
            yield f".{value.__func__.__name__}.__self__", value.__self__
            yield f".{value.__func__.__name__}", value.__func__
        elif isinstance(value, type):
            for name, item in tuple(vars(value).items()):
                if isinstance(item, classmethod | staticmethod):
                    item = item.__func__
                if name not in ("__dict__", "__weakref__"):
                    yield f".{name}", item
        elif not isinstance(value, CodeType | ModuleType):
            yield from _parts_of_object(value)


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    for name, cell in cells:
        try:
            yield f"its variable {name!r}", cell.cell_contents
        except ValueError:  # not set yet
            continue
    for name in _names_in(function.__code__):
        if name in function.__globals__:
            yield f"its global {name!r}", function.__globals__[name]
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"its default of {name!r}", value
    for at, value in enumerate(function.__defaults__ or ()):
        yield f"its default {at + 1}", value
    for name, value in vars(function).items():
        yield f".{name}", value


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)


def _parts_of_object(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what the object itself says that a pickle of it holds."""
    reduced = value.__reduce_ex__(4)
    if not isinstance(reduced, tuple):
        return
    _, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
    tables = state if isinstance(state, tuple) else (state,)
    for table in tables:
        if isinstance(table, dict):
            for name, part in table.items():
                yield f".{name}", part
        elif table is not None:
            yield " (its state)", table
    for at, part in enumerate(items or ()):
        yield f"[{at}]", part
    for key, part in pairs or ():
        yield f"[{_short(key)}]", part
    for part in arguments or ():
        if not isinstance(part, type):
            yield from _named(value, part)


def _named(value: Any, part: Any) -> Iterator[tuple[str, Any]]:
    """Yield an argument of what rebuilds an object, under the attribute that it is."""
    for name, held in _attributes(value):
        if held is part:
            yield name, part
            return
    yield " (what it is made of)", part


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    for name, held in tuple(getattr(value, "__dict__", {}).items()):
        yield f".{name}", held


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # foreign code
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 40 else f"{text[:37]}..."
