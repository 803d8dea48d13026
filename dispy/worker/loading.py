"""How a nursery makes a computation of what its node was sent.

Code of the client's `__main__` becomes code of this process's `__main__`, so that its classes
pickle by name in both directions. The user's own modules lie in a directory of their own, which
leads the path behind that of the jobs' files: what a job writes does not hide a module.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

from dispy.protocol.frames import Memory
from dispy.shipping.bundle import Bundle, read_bundle
from dispy.shipping.payloads import pack_for, this_python
from dispy.worker import inside
from dispy.worker.computation import Computation, function_of
from dispy.worker.names import mentioned_modules
from dispy.worker.programs import load_program

_COROUTINE = 0x80  # of a code's flags, in every version


def load(name: str, content: Memory, settings: Mapping[str, Any]) -> Computation:
    """Return a computation ready to be called; raises whatever its code raises."""
    directory, provided = settings["directory"], settings["names"]
    bundle = read_bundle(content)
    if bundle.python != this_python():
        pack_for(bundle.python)
    sys.modules["__main__"] = main = ModuleType("__main__")
    vars(main).update(provided)
    if bundle.modules:
        sys.path.insert(1, os.path.join(directory, bundle.modules))
    parts = _parts(bundle)
    if bundle.program is not None:
        computation = load_program(
            name, bundle.program, directory, provided, str(settings.get("java"))
        )
    else:
        computation = _function(name, parts["computation"])
    computation.setup, computation.cleanup = parts.get("setup"), parts.get("cleanup")
    provide(provided, parts)
    return computation


def provide(provided: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Give all functions that came the names that they may use without defining them."""
    depends = parts.get("depends", {})
    came = _functions_of([*parts.values(), *depends.values()])
    everywhere = [vars(sys.modules["__main__"])]
    for function in came:
        if not any(function.__globals__ is names for names in everywhere):
            everywhere.append(function.__globals__)
    for names in everywhere:
        for key, value in {**provided, **depends, **mentioned_modules(names, came)}.items():
            names.setdefault(key, value)


def _parts(bundle: Bundle) -> dict[str, Any]:
    """Rebuild the parts; what `__main__` has of classes and of depends is put there."""
    inside.loading = True
    try:
        parts = bundle.parts()
    finally:
        inside.loading = False
    vars(sys.modules["__main__"]).update({**parts.get("classes", {}), **parts.get("depends", {})})
    return parts


# -- what can be called


def _function(name: str, function: Any) -> Computation:
    plain = function_of(function)
    call: Callable[..., Any] = function
    if plain is not None and plain.__code__.co_flags & _COROUTINE:
        call = _run_to_its_end(function)
    elif isinstance(function, MethodType) and not isinstance(function.__self__, type):
        call = _bound(function)
    names = vars(sys.modules["__main__"]) if plain is None else plain.__globals__
    return Computation(name, call, names)


def _run_to_its_end(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs a coroutine function in an event loop of its own."""
    import asyncio  # 30 ms that only these need

    def run(*arguments: Any, **keywords: Any) -> Any:
        return asyncio.run(function(*arguments, **keywords))

    return run


def _bound(method: MethodType) -> Callable[..., Any]:
    """Return what calls a bound method, also with the instance as its first argument.

    dispy 4 shipped the method's class and took the instance from `submit`.
    """
    function, kind = method.__func__, type(method.__self__)

    def call(*arguments: Any, **keywords: Any) -> Any:
        if arguments and isinstance(arguments[0], kind):
            import inspect

            try:
                inspect.signature(method).bind(*arguments, **keywords)
            except TypeError:
                return function(*arguments, **keywords)
        return method(*arguments, **keywords)

    return call


def _functions_of(parts: Iterable[Any]) -> list[FunctionType]:
    """Return the functions that came, with those that they decorate.

    One that came by itself is among its globals by its name, as where it was defined.
    """
    found = []
    for part in parts:
        plain = function_of(part) if callable(part) else None
        while isinstance(plain, FunctionType):
            if not isinstance(part, MethodType) and plain.__name__ != "__call__":
                plain.__globals__.setdefault(plain.__name__, plain)
            found.append(plain)
            plain = getattr(plain, "__wrapped__", None)  # what it decorates
    return found
