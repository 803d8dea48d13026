"""A computation's code to bytes: by value where the other side cannot import it.

Functions and classes of `__main__` go by value, with cloudpickle. Those of modules go by
reference: a node has the module, because it is installed there or because it comes along (see
`dispy.shipping.modules`). On the node, code of `__main__` is again code of `__main__`.

Imported late: cloudpickle costs 16 ms, which `import dispy` must not.
"""

import io
import sys
from collections import ChainMap
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import cloudpickle

from dispy.shipping.bundle import call_now, main_names
from dispy.shipping.byvalue import ByValuePickler
from dispy.shipping.modules import has_file, imports_in, is_own
from dispy.shipping.payloads import CannotPack, by_value_lock

Names = dict[str, Any]


class Packed(NamedTuple):
    """Code as bytes, and the names of all modules that it needs, of whomever these are."""

    pickled: bytes
    modules: set[str]


class _CalledFirst:
    """Stands for a function in a pickle: it is called as soon as it has been rebuilt."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return call_now, (self._function,)


class _MainNames(dict[str, Any]):
    """Stands for the globals of `__main__` in a pickle: they are those of the node's."""

    def __reduce__(self) -> tuple[Any, ...]:
        return main_names, (self.get("__package__"),)


class _ClassesSeen:
    """Stands for the classes of `__main__` that have been pickled by the time it is."""

    def __init__(self, classes: Names) -> None:
        self._classes = classes

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self._classes),)


def pack_code(parts: Mapping[str, Any], name: str) -> Packed:
    """Return the bytes from which a worker rebuilds `parts` of the computation `name`.

    The part "init" is called before the others are rebuilt. A part "classes" is added: those of
    `__main__` that came along. Raises CannotPack.
    """
    ordered = dict(parts)
    if "init" in ordered:
        ordered = {"init": _CalledFirst(ordered.pop("init")), **ordered}
    file = io.BytesIO()
    with by_value_lock:
        pickler = CodePickler(file)
        try:
            pickler.dump({**ordered, "classes": _ClassesSeen(pickler.classes)})
        except Exception as error:  # foreign code: any object that the function refers to
            raise CannotPack(_why(parts, name, error)) from error
        finally:
            pickler.close()
    return Packed(file.getvalue(), pickler.modules())


def _why(parts: Mapping[str, Any], name: str, error: Exception) -> str:
    from dispy.shipping.culprits import describe_culprit

    depends = parts.get("depends", {})
    culprit = describe_culprit({**parts, **depends}, CodePickler)
    for key in parts:
        culprit = culprit.removeprefix(f"[{key!r}]").removeprefix(" with ")
    for key in depends:
        if culprit.startswith(f"[{key!r}]"):
            culprit = key + culprit.removeprefix(f"[{key!r}]")
    return (
        f"{name} cannot be sent to a node: {culprit} ({error}). That lives in this "
        f"process only; create it inside {name} instead."
    )


def _reduce_weak(table: "WeakKeyDictionary[Any, Any]") -> tuple[Any, ...]:
    return WeakKeyDictionary, (dict(table),)


class CodePickler(ByValuePickler):
    """One which notes what is needed beside the pickle. `close` it in the end."""

    dispatch_table = ChainMap(
        {WeakKeyDictionary: _reduce_weak},  # it is in every `functools.singledispatch`
        ByValuePickler.dispatch_table,
    )

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.classes: Names = {}  # of `__main__`, by name
        self._main = vars(sys.modules["__main__"])
        self._has_main = False  # functions of it are in the pickle
        self._modules: set[str] = set()  # named in the pickle
        self._packages: dict[int, str] = {}  # id of a code -> its function's package
        self._codes: list[CodeType] = []  # in the pickle
        self._by_value: list[ModuleType] = []  # registered so by us
        # How cloudpickle finds out that functions share their globals.
        self.globals_ref[id(self._main)] = _MainNames()

    def reducer_override(self, value: Any) -> Any:
        """Say how a function or class is pickled."""
        kind = type(value)
        if isinstance(value, CodeType):
            self._codes.append(value)
        elif isinstance(value, ModuleType):
            self._modules.add(value.__name__)
        elif issubclass(kind, FunctionType | type):
            self._note(value)
        return super().reducer_override(value)

    def _note(self, value: Any) -> None:
        if type(value) is FunctionType:
            self._packages[id(value.__code__)] = value.__globals__.get("__package__") or ""
            self._has_main = self._has_main or value.__globals__ is self._main
        elif value.__module__ == "__main__":
            name = value.__name__
            if self._main.get(name) is value:
                self.classes[name] = value
        module = sys.modules.get(getattr(value, "__module__", None) or "")
        if not isinstance(module, ModuleType):
            return
        if module.__name__ == "__main__" or module.__name__ in self._modules:
            return
        if is_own(module) and not has_file(module):  # made by the program as it runs
            if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                self._by_value.append(module)
            return
        self._modules.add(module.__name__)

    def modules(self) -> set[str]:
        """Return the names of the modules that the other side needs; also names of no module."""
        names = set(self._modules)
        for code in self._codes:
            if id(code) in self._packages:  # else it is within another
                names.update(imports_in(code, self._packages[id(code)]))
        if self._has_main:
            names.update(_modules_of(self._main))
        # A program that wants a module's code by value has said so to cloudpickle.
        by_value = cloudpickle.list_registry_pickle_by_value()
        return {name for name in names if not any(_is_within(name, one) for one in by_value)}

    def close(self) -> None:
        """Undo what was registered meanwhile."""
        for module in self._by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _modules_of(names: Names) -> Iterator[str]:
    """Yield the modules that a program has imported, or imported something from."""
    for value in tuple(names.values()):
        if isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, FunctionType | type):
            yield value.__module__
